// tangents * factor on the CPU: checks, allocation, threads and the choice of the instruction set.

#include "../scale.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>

#include "isa.h"
#include "scale_kernel.h"

namespace eqv::cpu {
namespace {

// Elements for which starting a thread pays, as in ATen's own elementwise kernels.
constexpr int64_t kGrain = 32768;

at::Tensor scale_tangents(
    const at::Tensor& tangents,  // [K, *R], of any number of dimensions
    const at::Tensor& factor)    // [*R]
{
  const ScaleCall call(tangents, factor);
  if (call.out.numel() == 0) return call.out;
  const ScaleRows rows = call.rows();
  // A tile's factor stays in the second-level cache for all tangents.
  const int64_t tile = std::clamp<int64_t>(rows.N / (4 * at::get_num_threads()), 1024, 32768);
  const int64_t grain = std::max<int64_t>(1, kGrain / (rows.K * tile));
  at::parallel_for(0, (rows.N + tile - 1) / tile, grain, [&](int64_t begin, int64_t end) {
    EQV_CPU_DISPATCH(scale_rule, call.dtypes, rows, tile, begin, end);
  });
  return call.out;
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CPU, m) { m.impl("scale_tangents", TORCH_FN(scale_tangents)); }

// For every device. Without it forward mode would take this operator's derivative to be zero, silently.
TORCH_LIBRARY_IMPL(equivengine, Autograd, m) {
  m.impl("scale_tangents", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace eqv::cpu
