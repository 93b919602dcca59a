// The dtypes that kernels are compiled for, and what they accumulate in.
#pragma once

#include <cstdint>

// Names as in torch, for the build facts: this line and the enumeration are one list.
#define EQV_KERNEL_DTYPES "\"float64\", \"float32\", \"bfloat16\""

namespace eqv {

enum class Dtype { float64, float32, bfloat16 };

namespace {

// bfloat16 as it lies in memory: the upper half of a float32.
struct Bfloat16 {
  std::uint16_t bits;
};

template <typename Storage>
struct AccumulatorOf {
  using type = Storage;
};
template <>
struct AccumulatorOf<Bfloat16> {
  using type = float;
};
template <typename Storage>
using Accumulator = typename AccumulatorOf<Storage>::type;

}  // namespace
}  // namespace eqv
