// Launches kernels, and gives them their dynamic shared memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <type_traits>

namespace eqv::cuda {
namespace {

// Shared memory that a block may have without asking for more.
constexpr std::size_t kSharedBytes = 48 * 1024;

// By an argument's own type, so that only the kernel's parameters are deduced.
template <typename T>
using Given = std::common_type_t<T>;

template <typename... Parameters>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, unsigned threads, std::size_t shared_bytes,
                   cudaStream_t stream, Given<Parameters>... arguments) {
  if (shared_bytes > kSharedBytes) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

inline cudaError_t device_attribute(cudaDeviceAttr attribute, int& value) {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  return cudaDeviceGetAttribute(&value, attribute, device);
}

}  // namespace

#if defined(__CUDACC__)
// A kernel's dynamic shared memory. For a host compiler tests/cuda_emulation defines it.
namespace {
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}
}  // namespace
#endif

}  // namespace eqv::cuda
