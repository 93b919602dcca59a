// Entry points of the per-ISA kernels of LayerNorm's and RMSNorm's rules; torch-free.
#pragma once

#include <cstdint>

#include "../math/dtype_pair.h"
#include "../math/norm.h"
#include "../math/norm_rows.h"
#include "row_tiles.h"

namespace eqv::cpu {
namespace {

// Scratch is a tile of rows and the weight in accumulators, each row beginning on a cache line: a 64-byte vector that
// straddles two lines costs two loads.
constexpr std::int64_t kCacheLine = 64;
constexpr std::int64_t norm_scratch_row(std::int64_t D) { return (D + kCacheLine - 1) / kCacheLine * kCacheLine; }

}  // namespace

#define EQV_DECLARE(VARIANT)                                                                                 \
  namespace VARIANT {                                                                                        \
  /* scratch: (tiles.rows + 1) norm_scratch_row(D) accumulators, aligned to kCacheLine bytes */              \
  void norm_rule(math::Rule rule, DtypePair dtypes, const NormRows& rows, const RowTiles& tiles,             \
                 std::int64_t task_begin, std::int64_t task_end, void* scratch);                             \
  }
EQV_DECLARE(base)
EQV_DECLARE(avx2)
EQV_DECLARE(avx512)
#undef EQV_DECLARE

}  // namespace eqv::cpu
