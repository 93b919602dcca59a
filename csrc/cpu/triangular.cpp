// Cholesky's factor of a small matrix and L^-1 X for a wide X on the CPU: checks, allocation, threads and the choice of
// the instruction set. What LAPACK computes here changes in the last bits with the number of threads.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "../tangents.h"
#include "aligned.h"
#include "isa.h"
#include "triangular_kernel.h"

namespace eqv::cpu {
namespace {

// Bytes of a block of columns: a share of a core's second-level cache.
constexpr int64_t kBlockBytes = 128 * 1024;

template <typename T>
void pack(const double* lower, int64_t k, T* tiles) {
  for (int64_t begin = 0; begin < k; begin += kSolveRows) {
    T* tile = tiles + solve_tile_begin(begin);
    for (int64_t j = 0; j < begin + kSolveRows; ++j) {
      for (int64_t i = 0; i < kSolveRows; ++i) {
        const int64_t row = begin + i;
        const double entry = row < k && j <= row ? lower[row * k + j] : 0;
        *tile++ = static_cast<T>(j == row ? (row < k ? 1 / entry : 1) : entry);
      }
    }
  }
}

void solve_lower(
    const at::Tensor& lower,  // [k, k], float64
    const at::Tensor& rows,   // [k, m]
    bool exact,
    const at::Tensor& out)  // [k, m]; may be rows
{
  EQV_CHECK_DIM(rows, 2);
  const Dtype dtype = kernel_dtype(rows, "rows");
  TORCH_CHECK_TYPE(dtype != Dtype::bfloat16, "rows: expected float64 or float32, got ", rows.scalar_type());
  const int64_t k = rows.size(0), m = rows.size(1);
  EQV_CHECK_SHAPE(lower, k, k);
  EQV_CHECK_DTYPE(lower, at::kDouble);
  EQV_CHECK_SHAPE(out, k, m);
  EQV_CHECK_DTYPE(out, rows.scalar_type());
  TORCH_CHECK_VALUE(m <= 1 || out.stride(1) == 1, "out: expected dense rows, got strides ", out.strides());
  if (k == 0 || m == 0) return;
  const Arithmetic arithmetic = arithmetic_of(dtype == Dtype::float64, exact);
  const at::Tensor dense = with_dense_rows(rows), triangle = lower.contiguous();
  const int64_t all = solve_rows(k), each = bytes(arithmetic);
  const AlignedBytes tiles(solve_tile_begin(all) * each);
  with_types(arithmetic, [&]<typename Type>(Type) {
    pack(triangle.const_data_ptr<double>(), k, static_cast<typename Type::T*>(tiles.data()));
  });
  const LowerSolve solve{tiles.data(), dense.const_data_ptr(), out.mutable_data_ptr(), k, m, dense.stride(0),
                         out.stride(0)};
  const int64_t block = std::clamp<int64_t>(kBlockBytes / (all * each) / 64 * 64, 64, 1024);
  at::parallel_for(0, (m + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
    const AlignedBytes scratch(all * block * each);
    EQV_CPU_DISPATCH(solve_columns, arithmetic, solve, block, begin * block, std::min(m, end * block), scratch.data());
  });
}

std::tuple<at::Tensor, at::Tensor> deferring_cholesky(
    const at::Tensor& matrix,      // [k, k], float64
    const at::Tensor& thresholds)  // [k], float64
{
  EQV_CHECK_DIM(matrix, 2);
  const int64_t k = matrix.size(0);
  EQV_CHECK_SHAPE(matrix, k, k);
  EQV_CHECK_DTYPE(matrix, at::kDouble);
  EQV_CHECK_SHAPE(thresholds, k);
  EQV_CHECK_DTYPE(thresholds, at::kDouble);
  at::Tensor lower = matrix.tril().contiguous(), deferred = at::empty({k}, matrix.options().dtype(at::kBool));
  const at::Tensor smallest = thresholds.contiguous();
  EQV_CPU_DISPATCH(cholesky, lower.mutable_data_ptr<double>(), k, smallest.const_data_ptr<double>(),
                   deferred.mutable_data_ptr<bool>());
  return {lower, deferred};
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CPU, m) {
  m.impl("solve_lower", TORCH_FN(solve_lower));
  m.impl("deferring_cholesky", TORCH_FN(deferring_cholesky));
}

// For every device. Without it forward mode would take these operators' derivatives to be zero, silently.
TORCH_LIBRARY_IMPL(equivengine, Autograd, m) {
  m.impl("solve_lower", torch::autograd::autogradNotImplementedFallback());
  m.impl("deferring_cholesky", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace eqv::cpu
