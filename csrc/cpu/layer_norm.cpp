// LayerNorm's derivative rules on the CPU: checks, allocation, threads and the choice of the instruction set.

#include "../layer_norm.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>
#include <new>

#include "isa.h"
#include "layer_norm_kernel.h"

namespace eqv::cpu {
namespace {

// Elements for which starting a thread pays, as in ATen's own elementwise kernels.
constexpr int64_t kGrain = 32768;

at::Tensor apply(
    math::Rule rule,
    const at::Tensor& tangents,               // [K, R, D]
    const at::Tensor& x,                      // [R, D]
    const at::Tensor& mean,                   // [R]
    const at::Tensor& rstd,                   // [R]
    const std::optional<at::Tensor>& weight)  // [D]
{
  const LayerNormCall call(tangents, x, mean, rstd, weight);
  if (call.out.numel() == 0) return call.out;
  const LayerNormRows rows = call.rows();

  // Few rows with many tangents must still feed all threads; else a row is prepared once for all of its tangents.
  const int64_t wanted = 4 * static_cast<int64_t>(at::get_num_threads());
  const int64_t blocks = rows.R >= wanted ? 1 : std::min(rows.K, (wanted + rows.R - 1) / rows.R);
  const int64_t tasks = rows.R * blocks;
  const int64_t work = std::max<int64_t>(1, rows.K * rows.D / blocks);
  const int64_t grain = std::max<int64_t>(1, kGrain / work);
  at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    const auto bytes = static_cast<size_t>(2 * layer_norm_scratch_row(rows.D)) * c10::elementSize(call.mean.scalar_type());
    const auto release = [](void* p) { ::operator delete(p, std::align_val_t{kCacheLine}); };
    const std::unique_ptr<void, decltype(release)> scratch(::operator new(bytes, std::align_val_t{kCacheLine}), release);
    EQV_CPU_DISPATCH(layer_norm_rule, rule, call.dtype, rows, begin, end, blocks, scratch.get());
  });
  return call.out;
}

at::Tensor layer_norm_jvp(
    const at::Tensor& tangents,               // [K, R, D]
    const at::Tensor& x,                      // [R, D]
    const at::Tensor& mean,                   // [R]
    const at::Tensor& rstd,                   // [R]
    const std::optional<at::Tensor>& weight)  // [D]
{
  return apply(math::Rule::jvp, tangents, x, mean, rstd, weight);
}

at::Tensor layer_norm_vjp(
    const at::Tensor& cotangents,             // [K, R, D]
    const at::Tensor& x,                      // [R, D]
    const at::Tensor& mean,                   // [R]
    const at::Tensor& rstd,                   // [R]
    const std::optional<at::Tensor>& weight)  // [D]
{
  return apply(math::Rule::vjp, cotangents, x, mean, rstd, weight);
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CPU, m) {
  m.impl("layer_norm_jvp", TORCH_FN(layer_norm_jvp));
  m.impl("layer_norm_vjp", TORCH_FN(layer_norm_vjp));
}

// For every device. Without it forward mode would take these operators' derivative to be zero, silently.
TORCH_LIBRARY_IMPL(equivengine, Autograd, m) {
  m.impl("layer_norm_jvp", torch::autograd::autogradNotImplementedFallback());
  m.impl("layer_norm_vjp", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace eqv::cpu
