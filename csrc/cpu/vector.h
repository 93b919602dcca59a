// SIMD vectors for the per-ISA kernels, by the vector extensions of GCC and Clang (no intrinsics, so every variant and
// every architecture shares one source). The including file defines EQV_VECTOR_BYTES.
#pragma once

#include <cstdint>
#include <cstring>

#include "../math/bfloat16.h"
#include "../math/dtype.h"
#include "../math/host_device.h"

namespace eqv::cpu {
namespace {

template <typename T>
struct VectorOf {
  static constexpr int lanes = EQV_VECTOR_BYTES / sizeof(T);
  typedef T type __attribute__((vector_size(EQV_VECTOR_BYTES)));
};
template <typename T>
using Vector = typename VectorOf<T>::type;

template <typename T>
EQV_INLINE Vector<T> broadcast(T value) {
  return Vector<T>{} + value;
}

template <typename T>
EQV_INLINE Vector<T> load(const T* source) {
  Vector<T> result;
  std::memcpy(&result, source, sizeof result);
  return result;
}

template <typename T>
EQV_INLINE void store(T* target, Vector<T> value) {
  std::memcpy(target, &value, sizeof value);
}

typedef std::uint16_t HalfWords __attribute__((vector_size(EQV_VECTOR_BYTES / 2)));
typedef std::uint32_t Words __attribute__((vector_size(EQV_VECTOR_BYTES)));

EQV_INLINE Vector<float> load(const Bfloat16* source) {
  HalfWords half;
  std::memcpy(&half, source, sizeof half);
  const Words bits = __builtin_convertvector(half, Words) << 16;
  Vector<float> result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// As math::round_to_bfloat16, lane by lane.
EQV_INLINE void store(Bfloat16* target, Vector<float> value) {
  Words bits;
  std::memcpy(&bits, &value, sizeof bits);
  const Words rounded = (bits + (0x7fffu + ((bits >> 16) & 1u))) >> 16;
  const auto is_nan = (Words)(value != value);
  const Words selected = (is_nan & 0x7fc0u) | (~is_nan & rounded);
  const HalfWords half = __builtin_convertvector(selected, HalfWords);
  std::memcpy(target, &half, sizeof half);
}

// Pairwise, so that few additions wait for one another.
template <int count, typename T>
EQV_INLINE double pairwise_sum(const T* values) {
  if constexpr (count == 1) {
    return values[0];
  } else {
    return pairwise_sum<count / 2>(values) + pairwise_sum<count / 2>(values + count / 2);
  }
}

// In double, so that adding the lanes up costs no accuracy.
template <typename T>
EQV_INLINE double horizontal_sum(Vector<T> value) {
  T lane[VectorOf<T>::lanes];
  std::memcpy(lane, &value, sizeof lane);
  return pairwise_sum<VectorOf<T>::lanes>(lane);
}

}  // namespace
}  // namespace eqv::cpu
