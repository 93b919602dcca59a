// What the CPU and the CUDA side of LayerNorm's derivative rules share: checks, allocation and strides.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <optional>

#include "checks.h"
#include "math/layer_norm_rows.h"

namespace eqv {

// Owns the tensors that a LayerNormRows points into.
struct LayerNormCall {
  LayerNormCall(
      const at::Tensor& tangents_,               // [K, R, D]
      const at::Tensor& x_,                      // [R, D]
      const at::Tensor& mean_,                   // [R]
      const at::Tensor& rstd_,                   // [R]
      const std::optional<at::Tensor>& weight_)  // [D]
      : dtype(kernel_dtype(x_, "x")) {
    check(tangents_, x_, mean_, rstd_, weight_.value_or(at::Tensor()));
    // Kernels walk along rows; rows themselves may lie anywhere (expanded tangents stay unexpanded).
    const auto with_dense_rows = [](const at::Tensor& t) { return t.size(-1) <= 1 || t.stride(-1) == 1 ? t : t.contiguous(); };
    tangents = with_dense_rows(tangents_);
    x = with_dense_rows(x_);
    mean = mean_.contiguous();
    rstd = rstd_.contiguous();
    if (weight_.has_value()) weight = weight_->contiguous();
    out = at::empty(tangents_.sizes(), tangents_.options(), at::MemoryFormat::Contiguous);
  }

  LayerNormRows rows() const {
    return {
        .tangents = tangents.const_data_ptr(),
        .x = x.const_data_ptr(),
        .mean = mean.const_data_ptr(),
        .rstd = rstd.const_data_ptr(),
        .weight = weight.defined() ? weight.const_data_ptr() : nullptr,
        .out = out.mutable_data_ptr(),
        .K = tangents.size(0),
        .R = tangents.size(1),
        .D = tangents.size(2),
        .tangents_stride_k = tangents.stride(0),
        .tangents_stride_r = tangents.stride(1),
        .x_stride_r = x.stride(0),
    };
  }

  Dtype dtype;
  at::Tensor tangents, x, mean, rstd, weight, out;

 private:
  // Parameters carry the operator's argument names, which the messages print.
  static void check(
      const at::Tensor& tangents,  // [K, R, D]
      const at::Tensor& x,         // [R, D]
      const at::Tensor& mean,      // [R]
      const at::Tensor& rstd,      // [R]
      const at::Tensor& weight) {  // [D] or undefined
    EQV_CHECK_DIM(x, 2);
    EQV_CHECK_DIM(tangents, 3);
    const int64_t K = tangents.size(0), R = x.size(0), D = x.size(1);
    EQV_CHECK_SHAPE(tangents, K, R, D);
    EQV_CHECK_SHAPE(mean, R);
    EQV_CHECK_SHAPE(rstd, R);
    const at::ScalarType accumulator = accumulator_type(kernel_dtype(x, "x"));
    EQV_CHECK_DTYPE(tangents, x.scalar_type());
    EQV_CHECK_DTYPE(mean, accumulator);
    EQV_CHECK_DTYPE(rstd, accumulator);
    EQV_CHECK_DEVICE(tangents, x.device());
    EQV_CHECK_DEVICE(mean, x.device());
    EQV_CHECK_DEVICE(rstd, x.device());
    if (weight.defined()) {
      EQV_CHECK_SHAPE(weight, D);
      EQV_CHECK_DTYPE(weight, x.scalar_type());
      EQV_CHECK_DEVICE(weight, x.device());
    }
  }
};

}  // namespace eqv
