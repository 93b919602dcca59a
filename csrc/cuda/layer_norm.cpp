// LayerNorm's derivative rules on CUDA devices: checks, allocation, the current stream.

#include "../layer_norm.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>

#include "launch_check.h"
#include "layer_norm.cuh"

namespace eqv::cuda {
namespace {

at::Tensor apply(
    math::Rule rule,
    const at::Tensor& tangents,               // [K, R, D]
    const at::Tensor& x,                      // [R, D]
    const at::Tensor& mean,                   // [R]
    const at::Tensor& rstd,                   // [R]
    const std::optional<at::Tensor>& weight)  // [D]
{
  const c10::cuda::CUDAGuard guard(x.device());
  const LayerNormCall call(tangents, x, mean, rstd, weight);
  if (call.out.numel() == 0) return call.out;
  const LayerNormRows rows = call.rows();
  TORCH_CHECK_VALUE(rows.R <= std::numeric_limits<int>::max(), "x: expected at most 2^31 - 1 rows, got ", rows.R);
  EQV_CHECK_LAUNCH(layer_norm_rule(rule, call.dtype, rows, c10::cuda::getCurrentCUDAStream().stream()));
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

TORCH_LIBRARY_IMPL(equivengine, CUDA, m) {
  m.impl("layer_norm_jvp", TORCH_FN(layer_norm_jvp));
  m.impl("layer_norm_vjp", TORCH_FN(layer_norm_vjp));
}

}  // namespace eqv::cuda
