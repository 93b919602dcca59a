// The arguments of an elementwise operation's derivative rule, tangents * factor, as the torch-free kernels take them.
#pragma once

#include <cstdint>

namespace eqv {

// Strides are in elements. No input overlaps the output.
struct ScaleRows {
  const void* tangents;  // [K, N], tangents' dtype, the last dimension contiguous
  const void* factor;    // [N], primal's dtype, contiguous
  void* out;             // [K, N], tangents' dtype, contiguous
  std::int64_t K, N;
  std::int64_t tangents_stride_k;
};

}  // namespace eqv
