// Launches attention's derivative rules; torch-free.
#pragma once

#include <cuda_runtime_api.h>

#include "../math/attention_heads.h"
#include "../math/dtype.h"

namespace eqv::cuda {

// Both return the launch's error. Empty results are left alone. K B H max(L, S) must be below 2^31.
cudaError_t attention_jvp(Dtype dtype, const AttentionJvp& rule, cudaStream_t stream);

// row_sums: room for [K, B, H, L] accumulators.
cudaError_t attention_vjp(Dtype dtype, const AttentionVjp& rule, void* row_sums, cudaStream_t stream);

}  // namespace eqv::cuda
