// What the CPU and the CUDA side of tangents * factor share: checks, allocation and strides.
#pragma once

#include "math/scale_rows.h"
#include "tangents.h"

namespace eqv {

// Owns the tensors that a ScaleRows points into.
struct ScaleCall {
  ScaleCall(
      const at::Tensor& tangents_,  // [K, *R], of any number of dimensions
      const at::Tensor& factor_)    // [*R]
      : dtypes(kernel_dtypes(tangents_, factor_, "factor")) {
    check(tangents_, factor_);
    // Each tangent dense; tangents themselves may lie anywhere (expanded tangents stay unexpanded).
    const bool dense = tangents_.size(0) > 0 && tangents_.select(0, 0).is_contiguous();
    tangents = dense ? tangents_ : tangents_.contiguous();
    factor = factor_.contiguous();
    out = empty_result(tangents_);
  }

  ScaleRows rows() const {
    return {
        .tangents = tangents.const_data_ptr(),
        .factor = factor.const_data_ptr(),
        .out = out.mutable_data_ptr(),
        .K = tangents.size(0),
        .N = factor.numel(),
        .tangents_stride_k = tangents.stride(0),
    };
  }

  DtypePair dtypes;
  at::Tensor tangents, factor, out;

 private:
  // Parameters carry the operator's argument names, which the messages print.
  static void check(
      const at::Tensor& tangents,  // [K, *R]
      const at::Tensor& factor) {  // [*R]
    TORCH_CHECK_VALUE(tangents.dim() == factor.dim() + 1 && tangents.sizes().slice(1) == factor.sizes(),
                      "tangents: expected shape [K, *factor.shape] with factor.shape ", factor.sizes(), ", got ",
                      tangents.sizes());
    EQV_CHECK_DEVICE(tangents, factor.device());
  }
};

}  // namespace eqv
