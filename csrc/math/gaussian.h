// Standard normal numbers from random words: the same bits from every compiler, processor and device.
//
// Only +, -, *, sqrt, conversions and integer operations, each of which IEEE 754 rounds in one way; log, sine and cosine
// are polynomials. No operation may be fused with the next: the device's intrinsics below never are, and setup.py
// compiles the files that include this with -ffp-contract=off. No intermediate result is subnormal, so flushing them
// changes nothing. equivengine/ops/sketch.py has the same steps in PyTorch; the tests compare bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace eqv::math {
namespace {

#if defined(__CUDA_ARCH__)
EQV_INLINE float add(float a, float b) { return __fadd_rn(a, b); }
EQV_INLINE float multiply(float a, float b) { return __fmul_rn(a, b); }
EQV_INLINE float square_root(float a) { return __fsqrt_rn(a); }
#else
EQV_INLINE float add(float a, float b) { return a + b; }
EQV_INLINE float multiply(float a, float b) { return a * b; }
EQV_INLINE float square_root(float a) { return __builtin_sqrtf(a); }
#endif

EQV_INLINE std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

EQV_INLINE float of_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// c0 + x (c1 + x (c2 + ...))
EQV_INLINE float polynomial(float, float c0) { return c0; }
template <typename... Coefficients>
EQV_INLINE float polynomial(float x, float c0, Coefficients... more) {
  return add(c0, multiply(x, polynomial(x, more...)));
}

// All polynomials are minimax fits (Remez), rounded to float32: relative errors 5e-9 (logarithm), 4e-9 (sine) and
// 1e-10 (cosine), below float32's rounding.

// log(1 + f) for |f| <= 1/3.
EQV_INLINE float log1p_of_third(float f) {
  const float rest = polynomial(f, 0x1.555506p-2f, -0x1.fffef0p-3f, 0x1.99d028p-3f, -0x1.559dcap-3f, 0x1.1ed71cp-3f,
                                -0x1.f31148p-4f, 0x1.1e66a0p-3f, -0x1.080578p-3f);
  return add(f, multiply(multiply(f, f), add(-0.5f, multiply(f, rest))));
}

// -2 log(u) for u = (word | 1) / 2^32: the odd multiples of 2^-32, symmetric about 1/2. Relative error 3e-7.
EQV_INLINE float minus_two_log(std::uint32_t word) {
  // Read as a signed number, the word is u where u < 1/2, else u - 1: rounded to 24 bits where it is small, so that
  // log(u) keeps its relative accuracy at both ends.
  const float distance = multiply(static_cast<float>(static_cast<std::int32_t>(word | 1u)), 0x1p-32f);
  const float u = distance < 0.0f ? add(1.0f, distance) : distance;
  // u = 2^exponent mantissa with mantissa in [2/3, 4/3).
  const std::uint32_t two_thirds = 0x3f2aaaabu;
  const std::uint32_t shifted = bits_of(u) - two_thirds;
  const std::int32_t exponent = static_cast<std::int32_t>(shifted) >> 23;
  const float mantissa = of_bits((shifted & 0x7fffffu) + two_thirds);
  const float f = exponent == 0 ? distance : add(mantissa, -1.0f);
  const float log = add(multiply(static_cast<float>(exponent), 0x1.62e430p-1f), log1p_of_third(f));
  return multiply(-2.0f, log);
}

struct NormalPair {
  float first, second;
};

// Two independent standard normal numbers (Box and Muller, 1958); at most 6.67 in size.
EQV_INLINE NormalPair normal_pair(std::uint32_t radius_word, std::uint32_t angle_word) {
  const float radius = square_root(minus_two_log(radius_word));
  // The lower 30 bits are an angle within -pi/4 .. pi/4, the upper two choose one of four quarters of the circle.
  const auto within = static_cast<std::int32_t>((angle_word << 2) | 2u);
  const float angle = multiply(static_cast<float>(within), 0x1.921fb6p-32f);  // pi/2 * 2^-32
  const float square = multiply(angle, angle);
  const float sine_rest = polynomial(square, -0x1.555546p-3f, 0x1.110760p-7f, -0x1.994eb4p-13f);
  const float sine = add(angle, multiply(multiply(angle, square), sine_rest));
  const float cosine_rest = polynomial(square, 0x1.55554ap-5f, -0x1.6c0c8cp-10f, 0x1.9a025ap-16f);
  const float cosine = add(1.0f, multiply(square, add(-0.5f, multiply(square, cosine_rest))));
  const float along = multiply(radius, of_bits(bits_of(cosine) ^ (angle_word & 0x80000000u)));
  const float across = multiply(radius, sine);
  const bool swapped = (angle_word & 0x40000000u) != 0;
  return {swapped ? across : along, swapped ? along : across};
}

}  // namespace
}  // namespace eqv::math
