// Entry points of the per-ISA LayerNorm kernels; torch-free.
#pragma once

#include <cstdint>

#include "../math/dtype.h"
#include "../math/layer_norm.h"
#include "../math/layer_norm_rows.h"

namespace eqv::cpu {
namespace {

// Scratch is two rows of accumulators, each beginning on a cache line: a 64-byte vector that straddles two lines costs
// two loads.
constexpr std::int64_t kCacheLine = 64;
constexpr std::int64_t layer_norm_scratch_row(std::int64_t D) { return (D + kCacheLine - 1) / kCacheLine * kCacheLine; }

}  // namespace

// A task is one row with one block of consecutive tangents: task = row * blocks + block. Every (row, tangent) is
// computed by itself, so its bits depend neither on the blocks nor on the threads.
#define EQV_DECLARE(VARIANT)                                                                            \
  namespace VARIANT {                                                                                   \
  /* scratch: 2 layer_norm_scratch_row(D) accumulators, aligned to kCacheLine bytes */                   \
  void layer_norm_rule(math::Rule rule, Dtype dtype, const LayerNormRows& rows, std::int64_t task_begin, \
                       std::int64_t task_end, std::int64_t blocks, void* scratch);                      \
  }
EQV_DECLARE(base)
EQV_DECLARE(avx2)
EQV_DECLARE(avx512)
#undef EQV_DECLARE

}  // namespace eqv::cpu
