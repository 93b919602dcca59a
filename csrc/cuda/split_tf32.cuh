// Launches the split of float32 numbers into two TF32 numbers; torch-free.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace eqv::cuda {

// x, high and low are [N], contiguous; N must be positive. Returns the launch's error.
cudaError_t split_tf32(const float* x, float* high, float* low, std::int64_t N, cudaStream_t stream);

}  // namespace eqv::cuda
