// Launches LayerNorm's and RMSNorm's derivative rules; torch-free.
#pragma once

#include <cuda_runtime_api.h>

#include "../math/dtype_pair.h"
#include "../math/norm.h"
#include "../math/norm_rows.h"

namespace eqv::cuda {

// rows.K, rows.R and rows.D must be positive. Returns the launch's error.
cudaError_t norm_rule(math::Rule rule, DtypePair dtypes, const NormRows& rows, cudaStream_t stream);

}  // namespace eqv::cuda
