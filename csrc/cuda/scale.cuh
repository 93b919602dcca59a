// Launches tangents * factor; torch-free.
#pragma once

#include <cuda_runtime_api.h>

#include "../math/dtype_pair.h"
#include "../math/scale_rows.h"

namespace eqv::cuda {

// rows.K and rows.N must be positive. Returns the launch's error.
cudaError_t scale_tangents(DtypePair dtypes, const ScaleRows& rows, cudaStream_t stream);

}  // namespace eqv::cuda
