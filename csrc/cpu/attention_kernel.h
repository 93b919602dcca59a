// Entry points of the per-ISA attention kernels; torch-free.
#pragma once

#include <cstdint>

#include "../math/attention_heads.h"
#include "../math/dtype.h"

namespace eqv::cpu {

// How a call is cut into tasks: (b, h) by blocks of consecutive tangents by pieces of the query rows. The VJP sums over
// query rows, so there they are one piece.
struct AttentionSplit {
  std::int64_t tangent_blocks, row_pieces;
};

namespace {

// Rows of scratch matrices begin on a cache line. In elements of any dtype.
constexpr std::int64_t kAttentionLine = 16;
constexpr std::int64_t attention_columns(std::int64_t n) {
  return (n + kAttentionLine - 1) / kAttentionLine * kAttentionLine;
}

// An odd number of lines apart: columns of powers of two would compete for few places in the cache.
constexpr std::int64_t attention_stride(std::int64_t n) {
  return attention_columns(n) + (attention_columns(n) / kAttentionLine % 2 == 0 ? kAttentionLine : 0);
}

// Scores are worked on in blocks of query rows, a multiple of kAttentionRows that holds about this many bytes: half of
// a small second-level cache, the probabilities taking the other half.
constexpr std::int64_t kAttentionRows = 12;
constexpr std::int64_t kAttentionScoreBytes = 64 << 10;
constexpr std::int64_t attention_block(std::int64_t S, std::int64_t bytes) {
  const std::int64_t fit = kAttentionScoreBytes / (attention_stride(S) * bytes) / kAttentionRows * kAttentionRows;
  return fit < kAttentionRows ? kAttentionRows : fit > 8 * kAttentionRows ? 8 * kAttentionRows : fit;
}

}  // namespace

// Every element is one chain of operations whatever the split, so bits do not depend on it, nor on the threads.
#define EQV_DECLARE(VARIANT)                                                                                      \
  namespace VARIANT {                                                                                             \
  std::int64_t attention_jvp_scratch_bytes(Dtype dtype, const AttentionPrimal& primal);                           \
  std::int64_t attention_vjp_scratch_bytes(Dtype dtype, const AttentionPrimal& primal);                           \
  /* scratch: aligned to 64 bytes. dot: the processor has AVX512-BF16; looked at by the avx512 variant only. */    \
  void attention_jvp(Dtype dtype, bool dot, const AttentionJvp& call, const AttentionSplit& split,                \
                     std::int64_t task_begin, std::int64_t task_end, void* scratch);                              \
  void attention_vjp(Dtype dtype, bool dot, const AttentionVjp& call, const AttentionSplit& split,                \
                     std::int64_t task_begin, std::int64_t task_end, void* scratch);                              \
  }
EQV_DECLARE(base)
EQV_DECLARE(avx2)
EQV_DECLARE(avx512)
#undef EQV_DECLARE

}  // namespace eqv::cpu
