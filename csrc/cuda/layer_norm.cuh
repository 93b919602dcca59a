// Launches LayerNorm's derivative rules; torch-free.
#pragma once

#include <cuda_runtime_api.h>

#include "../math/dtype.h"
#include "../math/layer_norm.h"
#include "../math/layer_norm_rows.h"

namespace eqv::cuda {

// rows.K, rows.R and rows.D must be positive. Returns the launch's error.
cudaError_t layer_norm_rule(math::Rule rule, Dtype dtype, const LayerNormRows& rows, cudaStream_t stream);

}  // namespace eqv::cuda
