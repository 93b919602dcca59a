// Sums over a thread block, in an order that depends on the block's size only.
#pragma once

namespace eqv::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kMaxWarps = 8;

// Every thread of the block calls it with `count` addends and gets their `count` sums over the block. `shared` is used
// from the call until the block's next barrier, so consecutive calls alternate between two buffers.
template <int count, typename T>
__device__ __forceinline__ void block_sums(T (&values)[count], T (*shared)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) {
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      values[i] += __shfl_xor_sync(0xffffffffu, values[i], offset);
    }
  }
  const int warps = blockDim.x / kWarp;
  if (warps == 1) return;
  if (threadIdx.x % kWarp == 0) {
#pragma unroll
    for (int i = 0; i < count; ++i) shared[threadIdx.x / kWarp][i] = values[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < count; ++i) {
    T sum = shared[0][i];
    for (int warp = 1; warp < warps; ++warp) sum += shared[warp][i];
    values[i] = sum;
  }
}

}  // namespace
}  // namespace eqv::cuda
