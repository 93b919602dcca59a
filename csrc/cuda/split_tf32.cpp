// float32 as the sum of two TF32 numbers, on CUDA devices: checks, allocation, the current stream.

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <tuple>

#include "../checks.h"
#include "launch_check.h"
#include "split_tf32.cuh"

namespace eqv::cuda {
namespace {

std::tuple<at::Tensor, at::Tensor> split(const at::Tensor& x) {
  EQV_CHECK_DTYPE(x, at::kFloat);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense = x.contiguous();
  at::Tensor high = at::empty(dense.sizes(), dense.options()), low = at::empty(dense.sizes(), dense.options());
  if (dense.numel() > 0) {
    on_current_stream([&](cudaStream_t stream) {
      return split_tf32(dense.const_data_ptr<float>(), high.mutable_data_ptr<float>(), low.mutable_data_ptr<float>(),
                        dense.numel(), stream);
    });
  }
  return {high, low};
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CUDA, m) { m.impl("split_tf32", TORCH_FN(split)); }

TORCH_LIBRARY_IMPL(equivengine, Autograd, m) {
  m.impl("split_tf32", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace eqv::cuda
