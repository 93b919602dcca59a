// Random sketches on CUDA devices: checks, the current stream.

#include "../sketch.h"

#include <torch/library.h>

#include "launch_check.h"
#include "sketch.cuh"

namespace eqv::cuda {
namespace {

void fill_sketch(const at::Tensor& out, int64_t key, int64_t start, int64_t offset, std::string_view kind,
                 int64_t sparsity) {
  const c10::cuda::CUDAGuard guard(out.device());
  const SketchCall call(out, key, start, offset, kind, sparsity);
  if (out.numel() == 0) return;
  on_current_stream([&](cudaStream_t stream) { return sketch(call.dtype, call.kind, call.rows, stream); });
}

}  // namespace

TORCH_LIBRARY_IMPL(equivengine, CUDA, m) { m.impl("fill_sketch", TORCH_FN(fill_sketch)); }

}  // namespace eqv::cuda
