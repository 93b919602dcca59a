// What the operators on K tangents share: the pairs of dtypes that they take, and tensors that kernels can walk along.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "checks.h"
#include "math/dtype_pair.h"

namespace eqv {

// `primal_name` is the operator's argument name, which the message prints.
inline DtypePair kernel_dtypes(const at::Tensor& tangents, const at::Tensor& primal, const char* primal_name) {
  const Dtype dtype = kernel_dtype(primal, primal_name);
  if (dtype == Dtype::float32 && tangents.scalar_type() == at::kBFloat16) return DtypePair::bfloat16_around_float32;
  EQV_CHECK_DTYPE(tangents, primal.scalar_type());
  switch (dtype) {
    case Dtype::float64:
      return DtypePair::float64;
    case Dtype::float32:
      return DtypePair::float32;
    default:
      return DtypePair::bfloat16;
  }
}

// Kernels walk along rows; rows themselves may lie anywhere (expanded tangents stay unexpanded).
inline at::Tensor with_dense_rows(const at::Tensor& tensor) {
  return tensor.size(-1) <= 1 || tensor.stride(-1) == 1 ? tensor : tensor.contiguous();
}

inline at::Tensor empty_result(const at::Tensor& tangents) {
  return at::empty(tangents.sizes(), tangents.options(), at::MemoryFormat::Contiguous);
}

}  // namespace eqv
