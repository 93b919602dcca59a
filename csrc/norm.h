// What the CPU and the CUDA side of LayerNorm's and RMSNorm's derivative rules share: checks, allocation and strides.
#pragma once

#include <optional>

#include "math/norm_rows.h"
#include "tangents.h"

namespace eqv {

// Owns the tensors that a NormRows points into.
struct NormCall {
  NormCall(
      const at::Tensor& tangents_,                 // [K, R, D]
      const at::Tensor& x_,                        // [R, D]
      const std::optional<at::Tensor>& mean_,      // [R]; none where rows are not centred
      const at::Tensor& rstd_,                     // [R]
      const std::optional<at::Tensor>& weight_,    // [D]
      const std::optional<at::Tensor>& residual_)  // [K, R, D]
      : dtypes(kernel_dtypes(tangents_, x_, "x")) {
    check(tangents_, x_, mean_.value_or(at::Tensor()), rstd_, weight_.value_or(at::Tensor()),
          residual_.value_or(at::Tensor()));
    tangents = with_dense_rows(tangents_);
    x = with_dense_rows(x_);
    if (mean_.has_value()) mean = mean_->contiguous();
    rstd = rstd_.contiguous();
    if (weight_.has_value()) weight = weight_->contiguous();
    if (residual_.has_value()) residual = with_dense_rows(*residual_);
    out = empty_result(tangents_);
  }

  NormRows rows() const {
    const auto data = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; };
    return {
        .tangents = data(tangents),
        .x = data(x),
        .mean = data(mean),
        .rstd = data(rstd),
        .weight = data(weight),
        .residual = data(residual),
        .out = out.mutable_data_ptr(),
        .K = tangents.size(0),
        .R = tangents.size(1),
        .D = tangents.size(2),
        .tangents_stride_k = tangents.stride(0),
        .tangents_stride_r = tangents.stride(1),
        .residual_stride_k = residual.defined() ? residual.stride(0) : 0,
        .residual_stride_r = residual.defined() ? residual.stride(1) : 0,
        .x_stride_r = x.stride(0),
    };
  }

  DtypePair dtypes;
  at::Tensor tangents, x, mean, rstd, weight, residual, out;

 private:
  // Parameters carry the operator's argument names, which the messages print.
  static void check(
      const at::Tensor& tangents,    // [K, R, D]
      const at::Tensor& x,           // [R, D]
      const at::Tensor& mean,        // [R] or undefined
      const at::Tensor& rstd,        // [R]
      const at::Tensor& weight,      // [D] or undefined
      const at::Tensor& residual) {  // [K, R, D] or undefined
    EQV_CHECK_DIM(x, 2);
    EQV_CHECK_DIM(tangents, 3);
    const int64_t K = tangents.size(0), R = x.size(0), D = x.size(1);
    const at::ScalarType accumulator = accumulator_type(kernel_dtype(x, "x"));
    EQV_CHECK_SHAPE(tangents, K, R, D);
    EQV_CHECK_DEVICE(tangents, x.device());
    if (mean.defined()) {
      EQV_CHECK_SHAPE(mean, R);
      EQV_CHECK_DTYPE(mean, accumulator);
      EQV_CHECK_DEVICE(mean, x.device());
    }
    EQV_CHECK_SHAPE(rstd, R);
    EQV_CHECK_DTYPE(rstd, accumulator);
    EQV_CHECK_DEVICE(rstd, x.device());
    if (weight.defined()) {
      EQV_CHECK_SHAPE(weight, D);
      EQV_CHECK_DTYPE(weight, x.scalar_type());
      EQV_CHECK_DEVICE(weight, x.device());
    }
    if (residual.defined()) {
      EQV_CHECK_SHAPE(residual, K, R, D);
      EQV_CHECK_DTYPE(residual, tangents.scalar_type());
      EQV_CHECK_DEVICE(residual, x.device());
    }
  }
};

}  // namespace eqv
