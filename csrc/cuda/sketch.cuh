// Launches the kernel of random sketches; torch-free.
#pragma once

#include <cuda_runtime_api.h>

#include "../math/dtype.h"
#include "../math/sketch_rows.h"

namespace eqv::cuda {

// float32 or float64; count and dim must be positive. Returns the launch's error.
cudaError_t sketch(Dtype dtype, Sketch kind, const SketchRows& rows, cudaStream_t stream);

}  // namespace eqv::cuda
