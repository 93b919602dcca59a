// What the CPU and the CUDA side of softmax's derivative rule share: checks, allocation and strides.
#pragma once

#include "math/softmax_rows.h"
#include "tangents.h"

namespace eqv {

// Owns the tensors that a SoftmaxRows points into.
struct SoftmaxCall {
  SoftmaxCall(
      const at::Tensor& tangents_,  // [K, R, D]
      const at::Tensor& p_)         // [R, D]
      : dtypes(kernel_dtypes(tangents_, p_, "p")) {
    check(tangents_, p_);
    tangents = with_dense_rows(tangents_);
    p = with_dense_rows(p_);
    out = empty_result(tangents_);
  }

  SoftmaxRows rows() const {
    return {
        .tangents = tangents.const_data_ptr(),
        .p = p.const_data_ptr(),
        .out = out.mutable_data_ptr(),
        .K = tangents.size(0),
        .R = tangents.size(1),
        .D = tangents.size(2),
        .tangents_stride_k = tangents.stride(0),
        .tangents_stride_r = tangents.stride(1),
        .p_stride_r = p.stride(0),
    };
  }

  DtypePair dtypes;
  at::Tensor tangents, p, out;

 private:
  // Parameters carry the operator's argument names, which the messages print.
  static void check(
      const at::Tensor& tangents,  // [K, R, D]
      const at::Tensor& p) {       // [R, D]
    EQV_CHECK_DIM(p, 2);
    EQV_CHECK_DIM(tangents, 3);
    const int64_t K = tangents.size(0), R = p.size(0), D = p.size(1);
    EQV_CHECK_SHAPE(tangents, K, R, D);
    EQV_CHECK_DEVICE(tangents, p.device());
  }
};

}  // namespace eqv
