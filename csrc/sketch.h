// What the CPU and the CUDA side of random sketches share: checks and the kernel's arguments.
#pragma once

#include <cmath>
#include <string_view>

#include "checks.h"
#include "math/sketch_rows.h"

namespace eqv {

struct SketchCall {
  // Integers that Python has as unsigned come as their two's complement.
  SketchCall(
      const at::Tensor& out,  // [count, dim]
      int64_t key, int64_t start, int64_t offset, std::string_view kind_, int64_t sparsity) {
    EQV_CHECK_DIM(out, 2);
    TORCH_CHECK_VALUE(out.is_contiguous(), "out: expected a contiguous tensor, got strides ", out.strides());
    TORCH_CHECK_VALUE(kind_ == "gaussian" || kind_ == "sign", "kind: expected gaussian | sign, got ", kind_);
    TORCH_CHECK_VALUE(sparsity >= 1 && sparsity <= kWords, "sparsity: expected 1 to 2^31, got ", sparsity);
    dtype = kernel_dtype(out, "out");
    TORCH_CHECK_TYPE(dtype != Dtype::bfloat16, "out: expected dtype float32 or float64, got ", out.scalar_type());
    kind = kind_ == "gaussian" ? Sketch::gaussian : Sketch::sign;
    rows = {
        .out = out.mutable_data_ptr(),
        .count = out.size(0),
        .dim = out.size(1),
        .key = static_cast<uint64_t>(key),
        .start = static_cast<uint64_t>(start),
        .offset = static_cast<uint64_t>(offset),
        .threshold = static_cast<uint32_t>(kWords / sparsity),
        .size = static_cast<float>(std::sqrt(static_cast<double>(sparsity))),
    };
  }

  Dtype dtype;
  Sketch kind;
  SketchRows rows;

 private:
  static constexpr int64_t kWords = int64_t{1} << 31;
};

}  // namespace eqv
