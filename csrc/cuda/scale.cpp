// tangents * factor on CUDA devices: checks, allocation, the current stream.

#include "../scale.h"

#include <torch/library.h>

#include "launch_check.h"
#include "scale.cuh"

namespace eqv::cuda {
namespace {

at::Tensor scale(
    const at::Tensor& tangents,  // [K, *R]
    const at::Tensor& factor)    // [*R]
{
  const c10::cuda::CUDAGuard guard(factor.device());
  const ScaleCall call(tangents, factor);
  if (call.out.numel() == 0) return call.out;
  on_current_stream([&](cudaStream_t stream) { return scale_tangents(call.dtypes, call.rows(), stream); });
  return call.out;
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CUDA, m) { m.impl("scale_tangents", TORCH_FN(scale)); }

}  // namespace eqv::cuda
