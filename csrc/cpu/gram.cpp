// X X^T in float64 on the CPU: checks, allocation, threads and the choice of the instruction set.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>

#include "../tangents.h"
#include "aligned.h"
#include "gram_kernel.h"
#include "isa.h"

namespace eqv::cpu {
namespace {

// Bytes of a packed panel: a share of a core's second-level cache.
constexpr int64_t kPanelBytes = 256 * 1024;
// Partial sums of all chunks together: 16 MB, but never fewer than eight chunks.
constexpr int64_t kPartialSums = 1 << 21;

// Columns are cut by the shape alone, and the chunks' sums are added in order: no thread count changes a bit.
struct Cut {
  int64_t panel, chunks, columns;  // of a chunk
};

Cut cut(int64_t k, int64_t m, int64_t bytes) {
  const int64_t panel = std::clamp<int64_t>(kPanelBytes / (k * bytes) / 64 * 64, 256, 512);
  const int64_t panels = (m + panel - 1) / panel;
  const int64_t wanted = std::min(panels, std::clamp<int64_t>(kPartialSums / (k * k), 8, 128));
  const int64_t columns = (panels + wanted - 1) / wanted * panel;
  return {panel, (m + columns - 1) / columns, columns};
}

at::Tensor gram(const at::Tensor& rows, bool exact) {
  EQV_CHECK_DIM(rows, 2);
  const Dtype dtype = kernel_dtype(rows, "rows");
  TORCH_CHECK_TYPE(dtype != Dtype::bfloat16, "rows: expected float64 or float32, got ", rows.scalar_type());
  const int64_t k = rows.size(0), m = rows.size(1);
  const auto options = rows.options().dtype(at::kDouble);
  if (k == 0 || m == 0) return at::zeros({k, k}, options);
  const at::Tensor dense = with_dense_rows(rows);
  const GramRows block{dense.const_data_ptr(), k, m, dense.stride(0)};
  const Arithmetic arithmetic = arithmetic_of(dtype == Dtype::float64, exact);
  const Cut columns = cut(k, m, bytes(arithmetic));
  const int64_t all = gram_rows(k), one = all * all;
  const at::Tensor partial = at::empty({columns.chunks, all, all}, options);
  double* sums = partial.mutable_data_ptr<double>();
  at::parallel_for(0, columns.chunks, 1, [&](int64_t begin, int64_t end) {
    const AlignedBytes scratch(gram_scratch_bytes(k, columns.panel, arithmetic));
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      std::fill_n(sums + chunk * one, one, 0.0);
      const int64_t first = chunk * columns.columns, last = std::min(m, first + columns.columns);
      EQV_CPU_DISPATCH(gram_columns, arithmetic, block, columns.panel, first, last, sums + chunk * one, scratch.data());
    }
  });
  at::Tensor result = at::empty({k, k}, options);
  double* out = result.mutable_data_ptr<double>();
  at::parallel_for(0, k, std::max<int64_t>(1, 32768 / (k * columns.chunks)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double* row = sums + i * all;
      for (int64_t chunk = 1; chunk < columns.chunks; ++chunk) {
        for (int64_t j = 0; j <= i; ++j) row[j] += sums[chunk * one + i * all + j];
      }
      for (int64_t j = 0; j <= i; ++j) out[i * k + j] = out[j * k + i] = row[j];
    }
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CPU, m) { m.impl("gram", TORCH_FN(gram)); }

// For every device. Without it forward mode would take this operator's derivative to be zero, silently.
TORCH_LIBRARY_IMPL(equivengine, Autograd, m) {
  m.impl("gram", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace eqv::cpu
