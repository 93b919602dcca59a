// Attention's derivative rules on CUDA devices: checks, allocation, the current stream.

#include "../attention.h"

#include <torch/library.h>

#include <algorithm>
#include <string_view>

#include "attention.cuh"
#include "launch_check.h"

namespace eqv::cuda {
namespace {

void check_size(const AttentionPrimal& primal) {
  check_count(primal.K * primal.B * primal.H * std::max(primal.L, primal.S), "K B H max(L, S)");
}

at::Tensor jvp(
    const std::optional<at::Tensor>& dq,  // [K, B, H, L, E]
    const std::optional<at::Tensor>& dk,  // [K, B, H, S, E]
    const std::optional<at::Tensor>& dv,  // [K, B, H, S, F]
    const at::Tensor& q,                  // [B, H, L, E]
    const at::Tensor& k,                  // [B, H, S, E]
    const at::Tensor& v,                  // [B, H, S, F]
    const at::Tensor& p,                  // [B, H, L, S]
    double scale, std::string_view precision) {
  const c10::cuda::CUDAGuard guard(q.device());
  const AttentionJvpCall call(dq, dk, dv, q, k, v, p, scale, precision);
  const AttentionJvp arguments = call.arguments();
  check_size(arguments.primal);
  on_current_stream([&](cudaStream_t stream) { return attention_jvp(call.dtype, arguments, stream); });
  return call.out;
}

at::Tensor vjp(
    const at::Tensor& g,  // [K, B, H, L, F]
    const at::Tensor& q,  // [B, H, L, E]
    const at::Tensor& k,  // [B, H, S, E]
    const at::Tensor& v,  // [B, H, S, F]
    const at::Tensor& p,  // [B, H, L, S]
    double scale, std::string_view precision) {
  const c10::cuda::CUDAGuard guard(q.device());
  const AttentionVjpCall call(g, q, k, v, p, scale, precision);
  const AttentionVjp arguments = call.arguments();
  check_size(arguments.primal);
  const at::Tensor row_sums =
      at::empty(call.g.sizes().slice(0, 4), call.g.options().dtype(accumulator_type(call.dtype)));
  on_current_stream([&](cudaStream_t stream) {
    return attention_vjp(call.dtype, arguments, row_sums.mutable_data_ptr(), stream);
  });
  return call.out;
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CUDA, m) {
  m.impl("attention_jvp", TORCH_FN(jvp));
  m.impl("attention_vjp", TORCH_FN(vjp));
}

}  // namespace eqv::cuda
