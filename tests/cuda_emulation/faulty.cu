// Kernels with the mistakes that the emulator is to notice, and one without.

#include "../../csrc/cuda/launch.cuh"
#include "block.h"

namespace {

using eqv::cuda::dynamic_shared;
using eqv::cuda::launch;

// Reverses 64 numbers three times through shared memory.
template <bool before_reading, bool before_writing>
__global__ void reverse(const float* in, float* out) {
  auto* shared = reinterpret_cast<float*>(dynamic_shared());
  float number = in[threadIdx.x];
  for (int times = 0; times < 3; ++times) {
    if constexpr (before_writing) __syncthreads();
    shared[threadIdx.x] = number;
    if constexpr (before_reading) __syncthreads();
    number = shared[blockDim.x - 1 - threadIdx.x];
  }
  out[threadIdx.x] = number;
}

__global__ void barrier_of_some(const float*, float*) {
  if (threadIdx.x < 40) __syncthreads();
}

__global__ void two_barriers(const float*, float*) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void half_a_warp_shuffles(const float* in, float* out) {
  if (threadIdx.x % 2 == 0) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, in[threadIdx.x], 2);
}

__global__ void past_the_end(const float* in, float*) {
  reinterpret_cast<float*>(dynamic_shared())[threadIdx.x + 1] = in[threadIdx.x];
}

}  // namespace

extern "C" {

const char* failure() { return emulation::failure(); }
emulation::Device* device() { return &emulation::device(); }

#define EXPORT(NAME, KERNEL, BYTES, ...) \
  int NAME(const float* in, float* out) { return launch(KERNEL, dim3(1 __VA_ARGS__), 64, BYTES, nullptr, in, out); }
EXPORT(correct, (reverse<true, true>), 256)
EXPORT(no_barrier_before_reading, (reverse<false, true>), 256)
EXPORT(no_barrier_before_writing, (reverse<true, false>), 256)
EXPORT(barrier_of_some_threads, barrier_of_some, 0)
EXPORT(different_barriers, two_barriers, 0)
EXPORT(shuffle_of_some_lanes, half_a_warp_shuffles, 0)
EXPORT(write_past_the_end, past_the_end, 256)
EXPORT(too_much_shared_memory, (reverse<true, true>), 228 * 1024)
EXPORT(too_tall_a_grid, (reverse<true, true>), 256, , 65536)
EXPORT(no_blocks, (reverse<true, true>), 256, , 0)
}
