// Softmax's derivative rule on CUDA devices: checks, allocation, the current stream.

#include "../softmax.h"

#include <torch/library.h>

#include "launch_check.h"
#include "softmax.cuh"

namespace eqv::cuda {
namespace {

at::Tensor softmax_jvp(
    const at::Tensor& tangents,  // [K, R, D]
    const at::Tensor& p)         // [R, D]
{
  const c10::cuda::CUDAGuard guard(p.device());
  const SoftmaxCall call(tangents, p);
  if (call.out.numel() == 0) return call.out;
  check_count(call.p.size(0), "rows of p");
  on_current_stream([&](cudaStream_t stream) { return softmax_rule(call.dtypes, call.rows(), stream); });
  return call.out;
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CUDA, m) { m.impl("softmax_jvp", TORCH_FN(softmax_jvp)); }

}  // namespace eqv::cuda
