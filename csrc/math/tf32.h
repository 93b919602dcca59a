// TF32: float32 with 10 bits of mantissa, the operands of tensor cores. Host and device round alike.
#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace eqv::math {
namespace {

// Round to nearest, ties away from zero; NaN becomes 0x7fffffff, as the device's instruction has it.
EQV_INLINE float round_to_tf32(float value) {
  std::uint32_t bits;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
#else
  std::memcpy(&bits, &value, sizeof bits);
  bits = value != value ? 0x7fffffffu : (bits + 0x1000u) & ~0x1fffu;
#endif
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

struct Tf32Pair {
  float high, low;
};

// high + low = value to 2^-22 of it, where |value| >= 2^-112. Where high is not finite, low is zero.
EQV_INLINE Tf32Pair split_tf32(float value) {
  const float high = round_to_tf32(value);
  const float rest = value - high;
  return {high, rest - rest == 0.0f ? round_to_tf32(rest) : 0.0f};
}

}  // namespace
}  // namespace eqv::math
