// The arguments of LayerNorm's derivative rules as the torch-free kernels take them.
#pragma once

#include <cstdint>

namespace eqv {

// Strides are in elements; the last dimension is contiguous.
struct LayerNormRows {
  const void* tangents;  // [K, R, D]
  const void* x;         // [R, D]
  const void* mean;      // [R], accumulator type
  const void* rstd;      // [R], accumulator type
  const void* weight;    // [D] or null
  void* out;             // [K, R, D], contiguous
  std::int64_t K, R, D;
  std::int64_t tangents_stride_k, tangents_stride_r;
  std::int64_t x_stride_r;
};

}  // namespace eqv
