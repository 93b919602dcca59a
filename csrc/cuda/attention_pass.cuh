// The kernel from which both of attention's rules are made. With probabilities P and scores X = sum of left right^T,
//
//   out = scale P * (X - rowsum(P * X)) weighted + P averaged
//
// Scores stay on the multiprocessor. A block computes 64 rows of a head's result and walks along P's columns twice:
// first for the row sums, then for the result. The scores of the first walk are kept in shared memory where that leaves
// room for a second block, and computed again otherwise; either way the result has the same bits. The rows of P may be
// the keys (P is read by columns); the sums then run along its columns and are read.
#pragma once

#include "../math/attention_heads.h"
#include "launch.cuh"
#include "warp_product.cuh"

namespace eqv::cuda {
namespace {

enum class Sums {
  of_rows,    // computed, and written where there is room for them
  of_columns  // read
};

// Null data leaves a product out. All dtypes and strides as in attention_heads.h.
struct Pass {
  int K, B, H;
  int rows, columns;            // of P
  int inner, width;             // columns of left and right; of weighted, averaged and out
  HeadsIn left[2];              // [rows, inner]
  HeadsIn right[2];             // [columns, inner]
  HeadsIn p;                    // [rows, columns]
  std::int64_t p_stride_column;
  HeadsIn weighted, averaged;   // [columns, width]
  HeadsOut out;                 // [rows, width]
  Sums sums_are;
  void* sums;                   // [K, B, H, rows or columns] accumulators: rowsum(P * X), without the scale; or null
  double scale;
};

constexpr int kPassThreads = 128;
constexpr int kWarpRows = 16;
constexpr int kRows = kPassThreads / kWarp * kWarpRows;  // of a block
constexpr int kColumns = 32;                             // of P, worked on at a time
constexpr int kInner = 32;                               // of left and right, worked on at a time
constexpr int kScoreTiles = kColumns / 8;

constexpr __host__ __device__ int round_up(int value, int unit) { return (value + unit - 1) / unit * unit; }

// Shared memory of a block: a tile of weights for each warp, a stage for what comes from global memory, the kept
// scores. The strides keep rows 16-byte aligned and the lanes of a warp in different banks.
template <typename Storage>
struct SharedTiles {
  static constexpr int stride = kInner + kPackWidth<Storage>;  // of weights, left and right
  static_assert(kColumns == kInner);
  static __host__ __device__ int value_stride(int width) { return round_up(width, 16) + 8; }

  static __host__ __device__ int stage(int width) {
    return max((kRows + kColumns) * stride, kColumns * value_stride(width));
  }
  static std::size_t bytes(int width) { return (kRows * stride + stage(width)) * sizeof(Storage); }
  // Threads read back what they wrote themselves.
  static std::size_t kept_bytes(int columns) {
    return std::size_t{kRows} * round_up(columns, kColumns) * sizeof(Accumulator<Storage>);
  }
};

// A matrix of one head in global memory.
template <typename Storage>
struct Matrix {
  const Storage* data;
  std::int64_t stride;
  int rows, columns;
};

// Copies [count, 32] elements from (row, column) on to shared memory; zeros beyond the matrix. `columns` is a multiple
// of 16, and may end before 32.
template <int count, int width, typename Storage>
__device__ __forceinline__ void stage_packs(const Matrix<Storage>& from, int row, int column, int columns, Storage* to,
                                            int stride) {
  constexpr int packs = kInner / width;
#pragma unroll 4
  for (int i = threadIdx.x; i < count * packs; i += kPassThreads) {
    const int r = i / packs, c = i % packs * width;
    if (c >= columns) continue;
    Pack<Storage, width> pack{};
    if (row + r < from.rows && column + c < from.columns) {
      pack = *reinterpret_cast<const Pack<Storage, width>*>(from.data + (row + r) * from.stride + column + c);
    }
    *reinterpret_cast<Pack<Storage, width>*>(to + r * stride + c) = pack;
  }
}

template <int count, typename Storage>
__device__ __forceinline__ void stage(const Matrix<Storage>& from, int row, int column, int columns, Storage* to,
                                      int stride, bool packed) {
  if (packed) {
    stage_packs<count, kPackWidth<Storage>>(from, row, column, columns, to, stride);
  } else {
    stage_packs<count, 1>(from, row, column, columns, to, stride);
  }
}

// Registers: 3 blocks to a multiprocessor where the result is narrow, else 2.
template <typename T, int tiles>
constexpr int kPassBlocks = tiles * sizeof(T) <= 32 ? 3 : 2;

// `tiles` times 8 columns of the result for each block. packed: rows of all operands and of the result consist of
// aligned packs.
template <typename Products, int tiles>
__global__ void __launch_bounds__(kPassThreads, kPassBlocks<typename Products::T, tiles>)
    pass_kernel(const Pass pass, const bool keep, const bool packed) {
  using Storage = typename Products::Storage;
  using T = typename Products::T;
  using Tiles = SharedTiles<Storage>;
  using Fragment = T[kScoreTiles][4];

  const int row_blocks = (pass.rows + kRows - 1) / kRows;
  const int row_begin = static_cast<int>(blockIdx.x % row_blocks) * kRows;
  const int head = static_cast<int>(blockIdx.x) / row_blocks;  // of K B H
  const int h = head % pass.H, b = head / pass.H % pass.B, k = head / (pass.H * pass.B);
  const auto of_head = [&](const auto& heads) {
    return k * heads.stride_k + b * heads.stride_b + h * heads.stride_h;
  };
  const auto matrix = [&](const HeadsIn& heads, int rows, int columns) {
    return Matrix<Storage>{static_cast<const Storage*>(heads.data) + of_head(heads), heads.stride_row, rows, columns};
  };
  const int width_begin = static_cast<int>(blockIdx.y) * (8 * tiles);
  const int width = min(pass.width - width_begin, 8 * tiles);

  const Place place;
  const int warp = threadIdx.x / kWarp;
  const int first_row = row_begin + warp * kWarpRows + place.g;
  // Where a lane's elements of a tile lie: c[i] is at row + 8 (i / 2), column + i % 2.
  const auto row_of = [&](int i) { return first_row + i / 2 * 8; };
  const auto column_of = [&](int begin, int tile, int i) { return begin + 8 * tile + 2 * place.t + i % 2; };

  auto* warp_weights = reinterpret_cast<Storage*>(dynamic_shared()) + warp * kWarpRows * Tiles::stride;
  Storage* staged = reinterpret_cast<Storage*>(dynamic_shared()) + kRows * Tiles::stride;
  T* kept = reinterpret_cast<T*>(staged + Tiles::stage(min(pass.width, 8 * tiles))) + threadIdx.x;

  const auto* p_head = static_cast<const Storage*>(pass.p.data) + of_head(pass.p);
  const auto read_p = [&](int begin, Fragment& p) {
#pragma unroll
    for (int tile = 0; tile < kScoreTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = row_of(i), column = column_of(begin, tile, i);
        const bool inside = row < pass.rows && column < pass.columns;
        p[tile][i] = inside ? math::widen(p_head[row * pass.p.stride_row + column * pass.p_stride_column]) : T(0);
      }
    }
  };

  const auto compute_scores = [&](int begin, Fragment& x) {
#pragma unroll
    for (int tile = 0; tile < kScoreTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) x[tile][i] = T(0);
    }
#pragma unroll 1
    for (int pair = 0; pair < 2; ++pair) {
      if (pass.left[pair].data == nullptr) continue;
      const auto left = matrix(pass.left[pair], pass.rows, pass.inner);
      const auto right = matrix(pass.right[pair], pass.columns, pass.inner);
#pragma unroll 1
      for (int inner = 0; inner < pass.inner; inner += kInner) {
        const int depth = round_up(min(pass.inner - inner, kInner), 16);
        __syncthreads();
        stage<kRows>(left, row_begin, inner, depth, staged, Tiles::stride, packed);
        stage<kColumns>(right, begin, inner, depth, staged + kRows * Tiles::stride, Tiles::stride, packed);
        __syncthreads();
        Products::template add<Right::by_columns>(x, staged + warp * kWarpRows * Tiles::stride, Tiles::stride,
                                                  staged + kRows * Tiles::stride, Tiles::stride, depth, kScoreTiles);
      }
    }
  };

  T row_sums[2] = {};
  if (pass.weighted.data != nullptr && pass.sums_are == Sums::of_rows) {
#pragma unroll 1
    for (int begin = 0; begin < pass.columns; begin += kColumns) {
      Fragment x, p;
      compute_scores(begin, x);
      read_p(begin, p);
#pragma unroll
      for (int tile = 0; tile < kScoreTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          row_sums[i / 2] += p[tile][i] * x[tile][i];
          if (keep) kept[((begin / kColumns * kScoreTiles + tile) * 4 + i) * kPassThreads] = x[tile][i];
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      row_sums[half] += __shfl_xor_sync(0xffffffffu, row_sums[half], 1);
      row_sums[half] += __shfl_xor_sync(0xffffffffu, row_sums[half], 2);
      if (pass.sums != nullptr && place.t == 0 && blockIdx.y == 0 && row_of(2 * half) < pass.rows) {
        static_cast<T*>(pass.sums)[std::int64_t{head} * pass.rows + row_of(2 * half)] = row_sums[half];
      }
    }
  }

  T result[tiles][4] = {};
  const int active = (width + 7) / 8;
  // Adds weights [rows, 32] times the rows [begin, begin + 32) of `values`.
  const auto add_values = [&](const Fragment& weights, const HeadsIn& values, int begin) {
    __syncwarp();
#pragma unroll
    for (int tile = 0; tile < kScoreTiles; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const T two[2] = {weights[tile][2 * half], weights[tile][2 * half + 1]};
        write<2>(two, warp_weights + (place.g + 8 * half) * Tiles::stride + 8 * tile + 2 * place.t);
      }
    }
    const auto from = matrix(values, pass.columns, pass.width);
    const int staged_width = round_up(width, 16), stride = Tiles::value_stride(width);
    __syncthreads();
    for (int column = 0; column < staged_width; column += kInner) {
      stage<kColumns>(from, begin, width_begin + column, staged_width - column, staged + column, stride, packed);
    }
    __syncthreads();
    Products::template add<Right::by_rows>(result, warp_weights, Tiles::stride, staged, stride, kColumns, active);
  };

#pragma unroll 1
  for (int begin = 0; begin < pass.columns; begin += kColumns) {
    Fragment p;
    read_p(begin, p);
    if (pass.weighted.data != nullptr) {
      Fragment x;
      if (!keep) compute_scores(begin, x);
#pragma unroll
      for (int tile = 0; tile < kScoreTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (keep) x[tile][i] = kept[((begin / kColumns * kScoreTiles + tile) * 4 + i) * kPassThreads];
          T sum = row_sums[i / 2];
          if (pass.sums_are == Sums::of_columns) {
            const int column = column_of(begin, tile, i);
            sum = column < pass.columns ? static_cast<const T*>(pass.sums)[std::int64_t{head} * pass.columns + column] : T(0);
          }
          x[tile][i] = static_cast<T>(pass.scale) * (p[tile][i] * (x[tile][i] - sum));
        }
      }
      add_values(x, pass.weighted, begin);
    }
    if (pass.averaged.data != nullptr) add_values(p, pass.averaged, begin);
  }

  auto* out = static_cast<Storage*>(pass.out.data) + of_head(pass.out);
#pragma unroll
  for (int tile = 0; tile < tiles; ++tile) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int column = column_of(0, tile, 0);
      if (row_of(2 * half) >= pass.rows || column >= width) continue;
      Storage* to = out + row_of(2 * half) * pass.out.stride_row + width_begin + column;
      const T two[2] = {result[tile][2 * half], result[tile][2 * half + 1]};
      if (packed) {
        write<2>(two, to);
      } else {
        math::narrow(two[0], to[0]);
        if (column + 1 < width) math::narrow(two[1], to[1]);
      }
    }
  }
}

}  // namespace
}  // namespace eqv::cuda
