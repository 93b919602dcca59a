// Argument checks that name the argument, what was expected and what came.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <vector>

#include "math/dtype.h"

// `tensor` must be a variable of the operator's argument name: the message prints it.
#define EQV_CHECK_SHAPE(tensor, ...)                                                                         \
  do {                                                                                                       \
    const std::vector<int64_t> eqv_expected{__VA_ARGS__};                                                    \
    TORCH_CHECK_VALUE((tensor).sizes() == c10::IntArrayRef(eqv_expected), #tensor, ": expected shape ",      \
                      c10::IntArrayRef(eqv_expected), " (" #__VA_ARGS__ "), got ", (tensor).sizes());        \
  } while (false)

#define EQV_CHECK_DIM(tensor, count)                                                                         \
  TORCH_CHECK_VALUE((tensor).dim() == (count), #tensor, ": expected ", (count), " dimensions, got shape ",   \
                    (tensor).sizes())

#define EQV_CHECK_DTYPE(tensor, expected)                                                                    \
  TORCH_CHECK_TYPE((tensor).scalar_type() == (expected), #tensor, ": expected dtype ", (expected), ", got ", \
                   (tensor).scalar_type())

#define EQV_CHECK_DEVICE(tensor, expected)                                                                   \
  TORCH_CHECK_VALUE((tensor).device() == (expected), #tensor, ": expected on ", (expected), ", got ",        \
                    (tensor).device())

namespace eqv {

// The kernel dtype of a tensor; an error that names the argument for any other.
inline Dtype kernel_dtype(const at::Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return Dtype::float64;
    case at::kFloat:
      return Dtype::float32;
    case at::kBFloat16:
      return Dtype::bfloat16;
    default:
      TORCH_CHECK_TYPE(false, name, ": expected one of " EQV_KERNEL_DTYPES ", got ", tensor.scalar_type());
  }
}

inline at::ScalarType accumulator_type(Dtype dtype) { return dtype == Dtype::float64 ? at::kDouble : at::kFloat; }

}  // namespace eqv
