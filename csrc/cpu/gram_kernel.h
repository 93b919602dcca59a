// Entry points of the per-ISA kernels of X X^T; torch-free.
#pragma once

#include <cstdint>

#include "arithmetic.h"

namespace eqv::cpu {

// X [k, m]: rows lie apart by `stride` elements, each dense.
struct GramRows {
  const void* data;
  std::int64_t k, m, stride;
};

// Rows are padded to whole tiles of any variant.
constexpr std::int64_t kGramRows = 12;
inline std::int64_t gram_rows(std::int64_t k) { return (k + kGramRows - 1) / kGramRows * kGramRows; }

// A line of cache between the rows of a packed panel: rows a power of two apart would share their sets.
constexpr std::int64_t kGramLine = 64;
inline std::int64_t gram_scratch_bytes(std::int64_t k, std::int64_t panel, Arithmetic arithmetic) {
  return gram_rows(k) * (panel * bytes(arithmetic) + kGramLine);
}

#define EQV_DECLARE(VARIANT)                                                                                        \
  namespace VARIANT {                                                                                               \
  /* Adds X[:, begin:end] X[:, begin:end]^T to the lower triangle of sums, [gram_rows(k)]^2, panel by panel; what    \
     stands above the diagonal is undefined. `panel` is a multiple of 64; scratch is aligned to a line. */          \
  void gram_columns(Arithmetic arithmetic, const GramRows& rows, std::int64_t panel, std::int64_t begin,            \
                    std::int64_t end, double* sums, void* scratch);                                                 \
  }
EQV_DECLARE(base)
EQV_DECLARE(avx2)
EQV_DECLARE(avx512)
#undef EQV_DECLARE

}  // namespace eqv::cpu
