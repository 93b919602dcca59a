// Philox4x32-10, a counter-based generator: four random words as a pure function of a counter and a key (Salmon,
// Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#pragma once

#include <cstdint>

#include "host_device.h"

namespace eqv::math {
namespace {

struct Words4 {
  std::uint32_t word[4];
};

EQV_INLINE std::uint32_t low_word(std::uint64_t value) { return static_cast<std::uint32_t>(value); }
EQV_INLINE std::uint32_t high_word(std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32); }

// The counter's words are low and high of `position`, then low and high of `vector`; the key's are low and high of
// `key`.
EQV_INLINE Words4 philox(std::uint64_t position, std::uint64_t vector, std::uint64_t key) {
  std::uint32_t c0 = low_word(position), c1 = high_word(position), c2 = low_word(vector), c3 = high_word(vector);
  std::uint32_t k0 = low_word(key), k1 = high_word(key);
#if defined(__CUDACC__)
#pragma unroll
#else
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * c0, product1 = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = high_word(product1) ^ c1 ^ k0;
    c1 = low_word(product1);
    c2 = high_word(product0) ^ c3 ^ k1;
    c3 = low_word(product0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace
}  // namespace eqv::math
