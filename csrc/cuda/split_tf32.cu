// x = high + low, both TF32: the operands of three tensor-core products that make up one in float32.

#include "split_tf32.cuh"

#include <algorithm>

#include "../math/tf32.h"
#include "launch.cuh"
#include "pack.cuh"

namespace eqv::cuda {
namespace {

constexpr int kSplitThreads = 256;

template <int width>
__global__ void __launch_bounds__(kSplitThreads)
    split_kernel(const float* x, float* high, float* low, const std::int64_t N) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kSplitThreads * width;
  std::int64_t n = (static_cast<std::int64_t>(blockIdx.x) * kSplitThreads + threadIdx.x) * width;
  for (; n < N; n += step) {
    float value[width], value_high[width], value_low[width];
    read<width>(x + n, value);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const math::Tf32Pair pair = math::split_tf32(value[i]);
      value_high[i] = pair.high;
      value_low[i] = pair.low;
    }
    write<width>(value_high, high + n);
    write<width>(value_low, low + n);
  }
}

template <int width>
cudaError_t run(const float* x, float* high, float* low, std::int64_t N, cudaStream_t stream) {
  int processors = 0;
  if (const cudaError_t error = device_attribute(cudaDevAttrMultiProcessorCount, processors); error != cudaSuccess) {
    return error;
  }
  constexpr std::int64_t per_block = kSplitThreads * width;
  const std::int64_t blocks = std::min((N + per_block - 1) / per_block, 32 * static_cast<std::int64_t>(processors));
  return launch(split_kernel<width>, dim3(static_cast<unsigned>(blocks)), kSplitThreads, 0, stream, x, high, low, N);
}

}  // namespace

cudaError_t split_tf32(const float* x, float* high, float* low, std::int64_t N, cudaStream_t stream) {
  constexpr int width = kPackWidth<float>;
  const bool packs = pack_aligned(x) && pack_aligned(high) && pack_aligned(low) && N % width == 0;
  return packs ? run<width>(x, high, low, N, stream) : run<1>(x, high, low, N, stream);
}

}  // namespace eqv::cuda
