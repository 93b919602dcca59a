// Conversions between bfloat16 and float32, the same bits on host and device.
#pragma once

#include <cstdint>
#include <cstring>

#include "dtype.h"
#include "host_device.h"

namespace eqv::math {
namespace {

EQV_INLINE float widen(Bfloat16 value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}
EQV_INLINE float widen(float value) { return value; }
EQV_INLINE double widen(double value) { return value; }

// Round to nearest, ties to even. NaN must be caught: adding the rounding term could carry its mantissa into infinity.
EQV_INLINE Bfloat16 round_to_bfloat16(float value) {
  if (value != value) return Bfloat16{0x7fc0};
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits += 0x7fffu + ((bits >> 16) & 1u);
  return Bfloat16{static_cast<std::uint16_t>(bits >> 16)};
}

EQV_INLINE void narrow(float value, Bfloat16& result) { result = round_to_bfloat16(value); }
EQV_INLINE void narrow(float value, float& result) { result = value; }
EQV_INLINE void narrow(double value, double& result) { result = value; }

}  // namespace
}  // namespace eqv::math
