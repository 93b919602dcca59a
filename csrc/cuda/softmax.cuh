// Launches softmax's derivative rule; torch-free.
#pragma once

#include <cuda_runtime_api.h>

#include "../math/dtype_pair.h"
#include "../math/softmax_rows.h"

namespace eqv::cuda {

// rows.K, rows.R and rows.D must be positive. Returns the launch's error.
cudaError_t softmax_rule(DtypePair dtypes, const SoftmaxRows& rows, cudaStream_t stream);

}  // namespace eqv::cuda
