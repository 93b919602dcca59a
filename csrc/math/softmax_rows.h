// The arguments of softmax's derivative rule as the torch-free kernels take them.
//
//   p (t - sum(p t)),  p = softmax(x)
//
// The Jacobian diag(p) - p p^T is symmetric: the rule is the jvp and the vjp.
#pragma once

#include <cstdint>

namespace eqv {

// Strides are in elements; the last dimension is contiguous. No input overlaps the output.
struct SoftmaxRows {
  const void* tangents;  // [K, R, D], tangents' dtype
  const void* p;         // [R, D], primal's dtype
  void* out;             // [K, R, D], tangents' dtype, contiguous
  std::int64_t K, R, D;
  std::int64_t tangents_stride_k, tangents_stride_r;
  std::int64_t p_stride_r;
};

}  // namespace eqv
