// Products of small matrices in shared memory by one warp, in the arithmetic of a choice.
//
// A warp adds left [16, depth] times right [depth, 8 tiles] to sums that lie in its registers as a tensor core's C does
// (mma.cuh), one [16, 8] tile after the other. `left` is stored by rows. `depth` is a multiple of 16, and only the
// first `active` tiles are computed.
#pragma once

#include "../math/tf32.h"
#include "mma.cuh"
#include "pack.cuh"
#include "reduce.cuh"

namespace eqv::cuda {
namespace {

// How the right factor [depth, columns] is stored.
enum class Right { by_columns, by_rows };

// A lane's place in a tile.
struct Place {
  int g, t;
  __device__ __forceinline__ Place() : g(threadIdx.x % kWarp / 4), t(threadIdx.x % 4) {}
};

// Multiplies and adds in the accumulator's own precision.
template <typename Storage_>
struct ExactProducts {
  using Storage = Storage_;
  using T = Accumulator<Storage>;

  template <Right right_is, int tiles>
  static __device__ __forceinline__ void add(T (&sums)[tiles][4], const Storage* left, int left_stride,
                                             const Storage* right, int right_stride, int depth, int active) {
    constexpr int step = 4;
    const Place place;
#pragma unroll 1
    for (int k = 0; k < depth; k += step) {
      T a[2][step];
      read<step>(left + place.g * left_stride + k, a[0]);
      read<step>(left + (place.g + 8) * left_stride + k, a[1]);
#pragma unroll
      for (int tile = 0; tile < tiles; ++tile) {
        if (tile >= active) continue;
        const int column = 8 * tile + 2 * place.t;
        T b[2][step];
        if constexpr (right_is == Right::by_columns) {
          read<step>(right + column * right_stride + k, b[0]);
          read<step>(right + (column + 1) * right_stride + k, b[1]);
        } else {
#pragma unroll
          for (int i = 0; i < step; ++i) {
            T two[2];
            read<2>(right + (k + i) * right_stride + column, two);
            b[0][i] = two[0];
            b[1][i] = two[1];
          }
        }
#pragma unroll
        for (int i = 0; i < step; ++i) {
#pragma unroll
          for (int c = 0; c < 4; ++c) sums[tile][c] += a[c / 2][i] * b[c % 2][i];
        }
      }
    }
  }
};

// Rounds to TF32 (terms = 1), or splits each operand in two TF32 numbers and adds the three products that matter,
// small ones first (terms = 3; Ootomo, Yokota, arXiv 2203.03341).
template <int terms>
struct Tf32Products {
  static_assert(terms == 1 || terms == 3);
  using Storage = float;
  using T = float;

  template <Right right_is, int tiles>
  static __device__ __forceinline__ void add(T (&sums)[tiles][4], const Storage* left, int left_stride,
                                             const Storage* right, int right_stride, int depth, int active) {
    const Place place;
#pragma unroll 1
    for (int k = 0; k < depth; k += 8) {
      float a[4], a_low[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        round(left[(place.g + i % 2 * 8) * left_stride + k + place.t + i / 2 * 4], a[i], a_low[i]);
      }
#pragma unroll
      for (int tile = 0; tile < tiles; ++tile) {
        if (tile >= active) continue;
        const int column = 8 * tile + place.g;
        float b[2], b_low[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int row = k + place.t + i * 4;
          const int at = right_is == Right::by_columns ? column * right_stride + row : row * right_stride + column;
          round(right[at], b[i], b_low[i]);
        }
        if constexpr (terms == 3) {
          mma_tf32(sums[tile], a_low, b);
          mma_tf32(sums[tile], a, b_low);
        }
        mma_tf32(sums[tile], a, b);
      }
    }
  }

 private:
  static __device__ __forceinline__ void round(float value, float& high, float& low) {
    if constexpr (terms == 3) {
      const math::Tf32Pair pair = math::split_tf32(value);
      high = pair.high;
      low = pair.low;
    } else {
      high = math::round_to_tf32(value);
    }
  }
};

// bfloat16 operands, sums in float32.
struct Bfloat16Products {
  using Storage = Bfloat16;
  using T = float;

  template <Right right_is, int tiles>
  static __device__ __forceinline__ void add(T (&sums)[tiles][4], const Storage* left, int left_stride,
                                             const Storage* right, int right_stride, int depth, int active) {
    const Place place;
#pragma unroll 1
    for (int k = 0; k < depth; k += 16) {
      std::uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = adjacent(left + (place.g + i % 2 * 8) * left_stride + k + 2 * place.t + i / 2 * 8);
      }
#pragma unroll
      for (int tile = 0; tile < tiles; ++tile) {
        if (tile >= active) continue;
        const int column = 8 * tile + place.g;
        std::uint32_t b[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int row = k + 2 * place.t + i * 8;
          if constexpr (right_is == Right::by_columns) {
            b[i] = adjacent(right + column * right_stride + row);
          } else {
            const Storage* pair = right + row * right_stride + column;
            b[i] = pair[0].bits | static_cast<std::uint32_t>(pair[right_stride].bits) << 16;
          }
        }
        mma_bfloat16(sums[tile], a, b);
      }
    }
  }

 private:
  static __device__ __forceinline__ std::uint32_t adjacent(const Bfloat16* pair) {
    std::uint32_t bits;
    std::memcpy(&bits, __builtin_assume_aligned(pair, sizeof bits), sizeof bits);
    return bits;
  }
};

}  // namespace
}  // namespace eqv::cuda
