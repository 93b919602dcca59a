// Launches a kernel on the current stream, and turns a failed launch into an error that says what to do.
#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <limits>

#include "build_facts.h"  // written by setup.py

namespace eqv::cuda {

// `launch` takes the stream and returns the launch's error. The caller holds a guard for the device.
template <typename Launch>
void on_current_stream(const Launch& launch) {
  const cudaError_t error = launch(c10::cuda::getCurrentCUDAStream().stream());
  if (error == cudaErrorNoKernelImageForDevice) {
    // Else the next launch that PyTorch checks would find this error and report it as its own.
    static_cast<void>(cudaGetLastError());
    TORCH_CHECK(false,
                "the compiled extension has no kernels for this GPU: it was built for compute capability "
                EQV_CUDA_ARCH_LIST "; rebuild it with TORCH_CUDA_ARCH_LIST set to this GPU's (`make setup`, or "
                "`pip install --no-build-isolation .`)");
  }
  C10_CUDA_CHECK(error);
}

// Grids count with 31 bits.
inline void check_count(int64_t count, const char* what) {
  TORCH_CHECK_VALUE(count <= std::numeric_limits<int>::max(), what, ": expected at most 2^31 - 1, got ", count);
}

}  // namespace eqv::cuda
