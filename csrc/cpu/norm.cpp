// LayerNorm's and RMSNorm's derivative rules on the CPU: checks, allocation, threads and the choice of the instruction
// set.

#include "../norm.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>
#include <new>

#include "isa.h"
#include "norm_kernel.h"

namespace eqv::cpu {
namespace {

// Elements for which starting a thread pays, as in ATen's own elementwise kernels.
constexpr int64_t kGrain = 32768;

at::Tensor apply(math::Rule rule, const NormCall& call) {
  if (call.out.numel() == 0) return call.out;
  const NormRows rows = call.rows();
  const auto row = norm_scratch_row(rows.D) * static_cast<int64_t>(c10::elementSize(call.rstd.scalar_type()));
  const RowTiles tiles = row_tiles(rows.R, rows.K, row, at::get_num_threads());
  const int64_t work = std::max<int64_t>(1, tiles.rows * rows.K * rows.D / tiles.blocks);
  at::parallel_for(0, task_count(tiles), std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end) {
    const auto bytes = static_cast<size_t>((tiles.rows + 1) * row);
    const auto release = [](void* p) { ::operator delete(p, std::align_val_t{kCacheLine}); };
    const std::unique_ptr<void, decltype(release)> scratch(::operator new(bytes, std::align_val_t{kCacheLine}), release);
    EQV_CPU_DISPATCH(norm_rule, rule, call.dtypes, rows, tiles, begin, end, scratch.get());
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
  return apply(math::Rule::jvp, NormCall(tangents, x, mean, rstd, weight, std::nullopt));
}

at::Tensor layer_norm_vjp(
    const at::Tensor& cotangents,               // [K, R, D]
    const at::Tensor& x,                        // [R, D]
    const at::Tensor& mean,                     // [R]
    const at::Tensor& rstd,                     // [R]
    const std::optional<at::Tensor>& weight,    // [D]
    const std::optional<at::Tensor>& residual)  // [K, R, D]
{
  return apply(math::Rule::vjp, NormCall(cotangents, x, mean, rstd, weight, residual));
}

at::Tensor rms_norm_jvp(
    const at::Tensor& tangents,               // [K, R, D]
    const at::Tensor& x,                      // [R, D]
    const at::Tensor& rstd,                   // [R]
    const std::optional<at::Tensor>& weight)  // [D]
{
  return apply(math::Rule::jvp, NormCall(tangents, x, std::nullopt, rstd, weight, std::nullopt));
}

at::Tensor rms_norm_vjp(
    const at::Tensor& cotangents,               // [K, R, D]
    const at::Tensor& x,                        // [R, D]
    const at::Tensor& rstd,                     // [R]
    const std::optional<at::Tensor>& weight,    // [D]
    const std::optional<at::Tensor>& residual)  // [K, R, D]
{
  return apply(math::Rule::vjp, NormCall(cotangents, x, std::nullopt, rstd, weight, residual));
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CPU, m) {
  m.impl("layer_norm_jvp", TORCH_FN(layer_norm_jvp));
  m.impl("layer_norm_vjp", TORCH_FN(layer_norm_vjp));
  m.impl("rms_norm_jvp", TORCH_FN(rms_norm_jvp));
  m.impl("rms_norm_vjp", TORCH_FN(rms_norm_vjp));
}

// For every device. Without it forward mode would take these operators' derivative to be zero, silently.
TORCH_LIBRARY_IMPL(equivengine, Autograd, m) {
  for (const char* name : {"layer_norm_jvp", "layer_norm_vjp", "rms_norm_jvp", "rms_norm_vjp"}) {
    m.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace eqv::cpu
