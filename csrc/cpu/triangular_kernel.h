// Entry points of the per-ISA kernels around a lower triangle: Cholesky's factor and L^-1 X; torch-free.
#pragma once

#include <cstdint>

#include "arithmetic.h"

namespace eqv::cpu {

// Rows of the triangle that are solved together.
constexpr std::int64_t kSolveRows = 6;
inline std::int64_t solve_rows(std::int64_t k) { return (k + kSolveRows - 1) / kSolveRows * kSolveRows; }

// A triangle as the kernel reads it, in the type of computation: for each tile of rows and each column before it, the tile's entries
// of that column; then the tile's own triangle by columns, its diagonal inverted.
inline std::int64_t solve_tile_begin(std::int64_t row) { return row * (row + kSolveRows) / 2; }

// L Y = X by columns: X and Y [k, m] of dense rows; they may be the same.
struct LowerSolve {
  const void* tiles;
  const void* rows;
  void* out;
  std::int64_t k, m, stride_rows, stride_out;
};

#define EQV_DECLARE(VARIANT)                                                                                     \
  namespace VARIANT {                                                                                            \
  /* Columns [begin, end), `block` at a time; block is a multiple of 64. Scratch for solve_rows(k) * block numbers is \
     aligned to a line of the cache. */                                                                          \
  void solve_columns(Arithmetic arithmetic, const LowerSolve& solve, std::int64_t block, std::int64_t begin,     \
                     std::int64_t end, void* scratch);                                                           \
  /* In place on the lower triangle of A [k, k]; see triangular.cpp. */                                          \
  void cholesky(double* a, std::int64_t k, const double* thresholds, bool* deferred);                            \
  }
EQV_DECLARE(base)
EQV_DECLARE(avx2)
EQV_DECLARE(avx512)
#undef EQV_DECLARE

}  // namespace eqv::cpu
