// The arguments of LayerNorm's and RMSNorm's derivative rules as the torch-free kernels take them.
#pragma once

#include <cstdint>

namespace eqv {

// Strides are in elements; the last dimension is contiguous. No input overlaps the output.
struct NormRows {
  const void* tangents;  // [K, R, D], tangents' dtype
  const void* x;         // [R, D], primal's dtype
  const void* mean;      // [R], primal's accumulator type; null where rows are not centred (RMSNorm)
  const void* rstd;      // [R], primal's accumulator type
  const void* weight;    // [D], primal's dtype, or null
  const void* residual;  // [K, R, D], tangents' dtype, added to the result of a vjp; or null
  void* out;             // [K, R, D], tangents' dtype, contiguous
  std::int64_t K, R, D;
  std::int64_t tangents_stride_k, tangents_stride_r;
  std::int64_t residual_stride_k, residual_stride_r;
  std::int64_t x_stride_r;
};

}  // namespace eqv
