// The part of CUDA that our torch-free kernels use, for a host compiler. It stands in for the toolkit's header of the
// same name, so the kernels' sources compile unchanged: g++ -x c++ -I tests/cuda_emulation csrc/cuda/X.cu
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>

#include "block.h"
#include "mma.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(bytes) alignas(bytes)

using std::max;
using std::min;

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
using dim3 = emulation::Extent;
using cudaStream_t = void*;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrComputeCapabilityMajor,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
};

inline const emulation::Extent &threadIdx = emulation::thread_index, &blockIdx = emulation::block_index,
                               &blockDim = emulation::block_extent, &gridDim = emulation::grid_extent;

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const emulation::Device& device = emulation::device();
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = device.processors;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = device.shared_per_block;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = device.shared_per_processor;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = device.capability;
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

namespace emulation {

// As on the device, more than 48 KiB of dynamic shared memory must be asked for, by kernel.
inline std::map<const void*, std::size_t> allowed_shared;

template <typename T>
T from_lane(T mine, unsigned lane, Place place) {
  T theirs;
  std::memcpy(&theirs, exchange(&mine, sizeof mine, place) + lane * kLargestExchange, sizeof theirs);
  return theirs;
}

// What every device of compute capability 5.0 or newer takes (CUDA C++ Programming Guide, technical specifications).
inline bool takes(dim3 grid, dim3 block) {
  const auto within = [](unsigned value, unsigned largest) { return value >= 1 && value <= largest; };
  return within(grid.x, 0x7fffffff) && within(grid.y, 0xffff) && within(grid.z, 0xffff) && within(block.x, 1024) &&
         within(block.y, 1024) && within(block.z, 64) && block.x * block.y * block.z <= 1024;
}

inline unsigned lane() { return thread_index.x % kLanes; }

}  // namespace emulation

template <typename... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int bytes) {
  if (bytes > emulation::device().shared_per_block) return cudaErrorInvalidValue;
  emulation::allowed_shared[reinterpret_cast<const void*>(kernel)] = static_cast<std::size_t>(bytes);
  return cudaSuccess;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  if (!emulation::takes(config->gridDim, config->blockDim)) return cudaErrorInvalidConfiguration;
  const std::size_t allowed = emulation::allowed_shared[reinterpret_cast<const void*>(kernel)];
  if (config->dynamicSmemBytes > std::max<std::size_t>(48 * 1024, allowed)) return cudaErrorInvalidValue;
  const auto body = [&] { kernel(static_cast<Parameters>(arguments)...); };
  return emulation::run(config->gridDim, config->blockDim, config->dynamicSmemBytes, body) ? cudaSuccess
                                                                                            : cudaErrorLaunchFailure;
}

inline void __stcg(uint4* address, uint4 value) { *address = value; }

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::wait_for_block({file, line});
}

inline void __syncwarp(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::exchange(nullptr, 0, {file, line});
}

// All shuffles are by whole warps.
template <typename T>
T __shfl_xor_sync(unsigned, T value, unsigned mask, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return emulation::from_lane(value, emulation::lane() ^ mask, {file, line});
}

namespace eqv::cuda {

inline unsigned char* dynamic_shared() { return emulation::dynamic_shared(); }

}  // namespace eqv::cuda
