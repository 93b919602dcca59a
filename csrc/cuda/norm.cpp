// LayerNorm's and RMSNorm's derivative rules on CUDA devices: checks, allocation, the current stream.

#include "../norm.h"

#include <torch/library.h>

#include "launch_check.h"
#include "norm.cuh"

namespace eqv::cuda {
namespace {

at::Tensor apply(
    math::Rule rule,
    const at::Tensor& tangents,                 // [K, R, D]
    const at::Tensor& x,                        // [R, D]
    const std::optional<at::Tensor>& mean,      // [R]; none where rows are not centred
    const at::Tensor& rstd,                     // [R]
    const std::optional<at::Tensor>& weight,    // [D]
    const std::optional<at::Tensor>& residual)  // [K, R, D]
{
  const c10::cuda::CUDAGuard guard(x.device());
  const NormCall call(tangents, x, mean, rstd, weight, residual);
  if (call.out.numel() == 0) return call.out;
  check_count(call.x.size(0), "rows of x");
  on_current_stream([&](cudaStream_t stream) { return norm_rule(rule, call.dtypes, call.rows(), stream); });
  return call.out;
}

at::Tensor layer_norm_jvp(
    const at::Tensor& tangents,               // [K, R, D]
    const at::Tensor& x,                      // [R, D]
    const at::Tensor& mean,                   // [R]
    const at::Tensor& rstd,                   // [R]
    const std::optional<at::Tensor>& weight)  // [D]
{
  return apply(math::Rule::jvp, tangents, x, mean, rstd, weight, std::nullopt);
}

at::Tensor layer_norm_vjp(
    const at::Tensor& cotangents,               // [K, R, D]
    const at::Tensor& x,                        // [R, D]
    const at::Tensor& mean,                     // [R]
    const at::Tensor& rstd,                     // [R]
    const std::optional<at::Tensor>& weight,    // [D]
    const std::optional<at::Tensor>& residual)  // [K, R, D]
{
  return apply(math::Rule::vjp, cotangents, x, mean, rstd, weight, residual);
}

at::Tensor rms_norm_jvp(
    const at::Tensor& tangents,               // [K, R, D]
    const at::Tensor& x,                      // [R, D]
    const at::Tensor& rstd,                   // [R]
    const std::optional<at::Tensor>& weight)  // [D]
{
  return apply(math::Rule::jvp, tangents, x, std::nullopt, rstd, weight, std::nullopt);
}

at::Tensor rms_norm_vjp(
    const at::Tensor& cotangents,               // [K, R, D]
    const at::Tensor& x,                        // [R, D]
    const at::Tensor& rstd,                     // [R]
    const std::optional<at::Tensor>& weight,    // [D]
    const std::optional<at::Tensor>& residual)  // [K, R, D]
{
  return apply(math::Rule::vjp, cotangents, x, std::nullopt, rstd, weight, residual);
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CUDA, m) {
  m.impl("layer_norm_jvp", TORCH_FN(layer_norm_jvp));
  m.impl("layer_norm_vjp", TORCH_FN(layer_norm_vjp));
  m.impl("rms_norm_jvp", TORCH_FN(rms_norm_jvp));
  m.impl("rms_norm_vjp", TORCH_FN(rms_norm_vjp));
}

}  // namespace eqv::cuda
