// In which type a kernel for blocks of rows computes, and in which the rows lie in memory. Torch-free.
#pragma once

#include <cstdint>

namespace eqv::cpu {

enum class Arithmetic { float32, float64_of_float32, float64 };

namespace {

inline Arithmetic arithmetic_of(bool is_float64, bool exact) {
  return is_float64 ? Arithmetic::float64 : exact ? Arithmetic::float64_of_float32 : Arithmetic::float32;
}

// Of one number in the type of computation.
inline std::int64_t bytes(Arithmetic arithmetic) { return arithmetic == Arithmetic::float32 ? 4 : 8; }

template <typename Stored, typename Computed>
struct Types {
  using S = Stored;
  using T = Computed;
};

// Calls function(Types<...>{}).
template <typename Function>
void with_types(Arithmetic arithmetic, const Function& function) {
  switch (arithmetic) {
    case Arithmetic::float32:
      return function(Types<float, float>{});
    case Arithmetic::float64_of_float32:
      return function(Types<float, double>{});
    default:
      return function(Types<double, double>{});
  }
}

}  // namespace
}  // namespace eqv::cpu
