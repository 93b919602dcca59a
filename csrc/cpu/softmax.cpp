// Softmax's derivative rule on the CPU: checks, allocation, threads and the choice of the instruction set.

#include "../softmax.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>

#include "isa.h"
#include "softmax_kernel.h"

namespace eqv::cpu {
namespace {

// Elements for which starting a thread pays, as in ATen's own elementwise kernels.
constexpr int64_t kGrain = 32768;

at::Tensor softmax_jvp(
    const at::Tensor& tangents,  // [K, R, D]
    const at::Tensor& p)         // [R, D]
{
  const SoftmaxCall call(tangents, p);
  if (call.out.numel() == 0) return call.out;
  const SoftmaxRows rows = call.rows();
  const auto row = rows.D * static_cast<int64_t>(c10::elementSize(p.scalar_type()));
  const RowTiles tiles = row_tiles(rows.R, rows.K, row, at::get_num_threads());
  const int64_t work = std::max<int64_t>(1, tiles.rows * rows.K * rows.D / tiles.blocks);
  at::parallel_for(0, task_count(tiles), std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end) {
    EQV_CPU_DISPATCH(softmax_rule, call.dtypes, rows, tiles, begin, end);
  });
  return call.out;
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CPU, m) { m.impl("softmax_jvp", TORCH_FN(softmax_jvp)); }

// For every device. Without it forward mode would take this operator's derivative to be zero, silently.
TORCH_LIBRARY_IMPL(equivengine, Autograd, m) {
  m.impl("softmax_jvp", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace eqv::cpu
