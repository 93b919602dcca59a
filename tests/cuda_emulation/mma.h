// The tensor core's instructions of csrc/cuda/mma.cuh for a host: the same matrices in the same lanes.
#pragma once

#include <cstdint>
#include <cstring>

#include "block.h"

namespace emulation {

template <typename Left, typename Right>
struct Operands {
  Left a[4];
  Right b[2];
};

// What the device sees of an operand: it ignores the lower 13 bits.
inline float as_tf32(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits &= ~0x1fffu;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float as_float(std::uint32_t two_bfloat16, int which) {
  const std::uint32_t bits = (two_bfloat16 >> (16 * which)) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// c[i] += sum over `depth` of left(row, k) right(k, column), products exact and the sum rounded once.
template <typename Left, typename Right>
void add_products(float (&c)[4], int depth, const Left& left, const Right& right) {
  const int g = static_cast<int>(thread_index.x % kLanes / 4), t = static_cast<int>(thread_index.x % 4);
  for (int i = 0; i < 4; ++i) {
    double sum = c[i];
    for (int k = 0; k < depth; ++k) sum += static_cast<double>(left(g + i / 2 * 8, k)) * right(k, 2 * t + i % 2);
    c[i] = static_cast<float>(sum);
  }
}

}  // namespace emulation

namespace eqv::cuda {

inline void mma_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2], const char* file = __builtin_FILE(),
                     int line = __builtin_LINE()) {
  using Mine = emulation::Operands<float, float>;
  const Mine mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const unsigned char* all = emulation::exchange(&mine, sizeof mine, {file, line});
  const auto of = [&](int lane) { return reinterpret_cast<const Mine*>(all + lane * emulation::kLargestExchange); };
  emulation::add_products(
      c, 8, [&](int row, int k) { return emulation::as_tf32(of(row % 8 * 4 + k % 4)->a[k / 4 * 2 + row / 8]); },
      [&](int k, int column) { return emulation::as_tf32(of(column * 4 + k % 4)->b[k / 4]); });
}

inline void mma_bfloat16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                         const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  using Mine = emulation::Operands<std::uint32_t, std::uint32_t>;
  const Mine mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const unsigned char* all = emulation::exchange(&mine, sizeof mine, {file, line});
  const auto of = [&](int lane) { return reinterpret_cast<const Mine*>(all + lane * emulation::kLargestExchange); };
  emulation::add_products(
      c, 16,
      [&](int row, int k) { return emulation::as_float(of(row % 8 * 4 + k % 8 / 2)->a[k / 8 * 2 + row / 8], k % 2); },
      [&](int k, int column) { return emulation::as_float(of(column * 4 + k % 8 / 2)->b[k / 8], k % 2); });
}

}  // namespace eqv::cuda
