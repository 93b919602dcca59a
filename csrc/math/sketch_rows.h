// Random vectors as pure functions of (key, number of the vector, coordinate), as the torch-free kernels make them.
#pragma once

#include <cstdint>

#include "gaussian.h"
#include "host_device.h"
#include "philox.h"

namespace eqv {

enum class Sketch { gaussian, sign };

// Coordinates `offset` to `offset + dim - 1` of the vectors `start` to `start + count - 1`.
struct SketchRows {
  void* out;  // [count, dim], float32 or float64, contiguous
  std::int64_t count, dim;
  std::uint64_t key, start, offset;
  std::uint32_t threshold;  // sign: of 2^31 possible values of a word, how many give an entry that is not zero
  float size;               // sign: of an entry that is not zero
};

namespace {

// Four coordinates share a counter, 4 block to 4 block + 3.
constexpr std::uint64_t kPerBlock = 4;

EQV_INLINE std::uint64_t first_block(const SketchRows& rows) { return rows.offset / kPerBlock; }

// Of one vector.
EQV_INLINE std::int64_t block_count(const SketchRows& rows) {
  const std::uint64_t end = rows.offset + static_cast<std::uint64_t>(rows.dim);
  return static_cast<std::int64_t>((end + kPerBlock - 1) / kPerBlock - first_block(rows));
}

struct Values4 {
  float value[4];
};

template <Sketch kind>
EQV_INLINE Values4 sketch_block(const SketchRows& rows, std::uint64_t vector, std::uint64_t block) {
  // The top byte of the position tells kinds apart: they are independent under one key.
  const std::uint64_t position = block | static_cast<std::uint64_t>(kind) << 56;
  const math::Words4 words = math::philox(position, vector, rows.key);
  Values4 values;
  if constexpr (kind == Sketch::gaussian) {
    for (int i = 0; i < 4; i += 2) {
      const math::NormalPair pair = math::normal_pair(words.word[i], words.word[i + 1]);
      values.value[i] = pair.first;
      values.value[i + 1] = pair.second;
    }
  } else {
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t word = words.word[i];
      const float entry = math::of_bits(math::bits_of(rows.size) ^ word << 31);
      values.value[i] = (word >> 1) < rows.threshold ? entry : 0.0f;
    }
  }
  return values;
}

}  // namespace
}  // namespace eqv
