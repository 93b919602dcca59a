// Products of small matrices for attention: C = A B or C += A B, with C in scratch memory in the accumulator's type.
//
// A is read where it lies, in any two strides. B is packed first into panels of a few vectors' width. An element of C
// is summed in chains of kChain multiply-adds along the inner dimension, whatever else is computed, so its bits do not
// depend on how the rows are cut. The including file defines EQV_VECTOR_BYTES.
//
// The inner dimension goes in steps: one element, or a pair of bfloat16 (what AVX512-BF16 multiplies at once; the last
// pair of an odd number has a zero).
#pragma once

#include <cstdint>
#include <cstring>

#include "attention_kernel.h"
#include "vector.h"

namespace eqv::cpu {
namespace {

// 32 vector registers hold 6 x 4 accumulators, 16 hold 6 x 2.
constexpr int kTileRows = 6;
constexpr int kTileVectors = EQV_VECTOR_BYTES == 64 ? 4 : 2;
static_assert(kAttentionRows % kTileRows == 0);

// Steps of one chain: short ones keep the roundoff of long sums down (it grows with a chain's length), and what a tile
// reads of B in the first-level cache.
constexpr std::int64_t kChain = 64;

// How elements are loaded and multiplied. Stored is what lies in memory, Unit what a panel holds for one step of a
// column.
template <typename T>
struct Single {
  using Stored = T;
  using Unit = T;
  using V = Vector<T>;
  static constexpr int step = 1;

  EQV_INLINE static T unit(const T* first, std::int64_t, std::int64_t) { return *first; }
  EQV_INLINE static V units(const T* first, std::int64_t, std::int64_t) { return load(first); }
  EQV_INLINE static V spread(const T* a) { return *a - V{}; }  // not 0 + a, which is an addition: it turns -0 into 0
  EQV_INLINE static V spread_half(const T* a) { return spread(a); }
  EQV_INLINE static V load_units(const T* b) { return load(b); }
  EQV_INLINE static V multiply_add(V a, V b, V sum) { return a * b + sum; }
};

struct Pairs {
  using Stored = Bfloat16;
  using Unit = std::uint32_t;
  using V = Vector<float>;
  static constexpr int step = 2;

  // The pair (first[0], first[stride]), or (first[0], 0) when only one is left.
  EQV_INLINE static Unit unit(const Bfloat16* first, std::int64_t stride, std::int64_t left) {
    return first[0].bits | (left > 1 ? static_cast<Unit>(first[stride].bits) << 16 : 0u);
  }
  EQV_INLINE static Words units(const Bfloat16* first, std::int64_t stride, std::int64_t left) {
    return widened(first) | (left > 1 ? widened(first + stride) << 16 : Words{});
  }
  EQV_INLINE static Words spread(const Bfloat16* a) {
    Unit pair;
    std::memcpy(&pair, a, sizeof pair);
    return pair - Words{};
  }
  EQV_INLINE static Words spread_half(const Bfloat16* a) { return static_cast<Unit>(a->bits) - Words{}; }
  EQV_INLINE static Words load_units(const Unit* b) {
    Words result;
    std::memcpy(&result, b, sizeof result);
    return result;
  }
  EQV_INLINE static Words widened(const Bfloat16* source) {
    HalfWords half;
    std::memcpy(&half, source, sizeof half);
    return __builtin_convertvector(half, Words);
  }
  EQV_INLINE static V as_floats(Words bits) {
    V result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
  }
  EQV_INLINE static V multiply_add(Words a, Words b, V sum) {
    sum = as_floats(a << 16) * as_floats(b << 16) + sum;
    return as_floats(a & 0xffff0000u) * as_floats(b & 0xffff0000u) + sum;
  }
};

#if EQV_VECTOR_BYTES == 64
// By the processor's own instruction, which no vector extension expresses: twice float32's rate.
struct DotPairs : Pairs {
  EQV_INLINE static V multiply_add(Words a, Words b, V sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
};
#endif

template <typename Ops>
using Sum = Accumulator<typename Ops::Stored>;

// The matrix A: element (row, inner index i) lies at data[row * stride_row + i / step * stride_step + i % step].
template <typename Stored>
struct Left {
  const Stored* data;
  std::int64_t rows, stride_row, stride_step;
};

// The matrix B as packed: for each panel, for each step, the panel's vectors.
template <typename Ops>
struct Right {
  const typename Ops::Unit* data;
  std::int64_t inner, columns;

  std::int64_t steps() const { return (inner + Ops::step - 1) / Ops::step; }
};

// Columns are cut into panels of nearly equal width: a narrow last one would leave the multipliers waiting.
struct Panels {
  std::int64_t vectors, count;

  EQV_INLINE std::int64_t begin(std::int64_t panel) const { return vectors * panel / count; }
};
template <typename Ops>
EQV_INLINE Panels panels(std::int64_t columns) {
  const std::int64_t vectors = attention_columns(columns) / VectorOf<Sum<Ops>>::lanes;
  return {vectors, (vectors + kTileVectors - 1) / kTileVectors};
}

// B[i][n] = source[i * stride + n]
template <typename Ops>
Right<Ops> pack(typename Ops::Unit* target, const typename Ops::Stored* source, std::int64_t stride, std::int64_t inner,
                std::int64_t columns) {
  constexpr std::int64_t lanes = VectorOf<Sum<Ops>>::lanes;
  const Right<Ops> packed{target, inner, columns};
  const Panels cut = panels<Ops>(columns);
  for (std::int64_t panel = 0; panel < cut.count; ++panel) {
    for (std::int64_t i = 0; i < inner; i += Ops::step) {
      for (std::int64_t n = cut.begin(panel) * lanes; n < cut.begin(panel + 1) * lanes; n += lanes, target += lanes) {
        const auto* first = source + i * stride + n;
        if (n + lanes <= columns) {
          const auto units = Ops::units(first, stride, inner - i);
          std::memcpy(target, &units, sizeof units);
        } else {
          for (std::int64_t lane = 0; lane < lanes; ++lane) {
            target[lane] = n + lane < columns ? Ops::unit(first + lane, stride, inner - i) : 0;
          }
        }
      }
    }
  }
  return packed;
}

template <int... i>
struct Lanes {};
template <int n, int... i>
struct LanesUpTo : LanesUpTo<n - 1, n - 1, i...> {};
template <int... i>
struct LanesUpTo<0, i...> {
  using type = Lanes<i...>;
};

// The first (or second) halves of a and b, lane by lane in turn.
template <bool second, typename V, int... i>
EQV_INLINE V interleave(V a, V b, Lanes<i...>) {
  constexpr int lanes = sizeof...(i), from = second ? lanes / 2 : 0;
  return __builtin_shufflevector(a, b, (from + i / 2 + (i % 2 ? lanes : 0))...);
}

// A square of lanes x lanes, by log2(lanes) perfect shuffles of its rows.
template <typename V, int lanes>
EQV_INLINE void transpose(V (&square)[lanes]) {
  using All = typename LanesUpTo<lanes>::type;
#pragma GCC unroll 4
  for (int round = 1; round < lanes; round *= 2) {
    V next[lanes];
#pragma GCC unroll 8
    for (int i = 0; i < lanes / 2; ++i) {
      next[2 * i] = interleave<false>(square[i], square[i + lanes / 2], All{});
      next[2 * i + 1] = interleave<true>(square[i], square[i + lanes / 2], All{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) square[i] = next[i];
  }
}

// B[i][n] = source[n * stride + i]
template <typename Ops>
Right<Ops> pack_transposed(typename Ops::Unit* target, const typename Ops::Stored* source, std::int64_t stride,
                           std::int64_t inner, std::int64_t columns) {
  using Row = decltype(Ops::load_units(target));
  constexpr int lanes = VectorOf<Sum<Ops>>::lanes;
  const Right<Ops> packed{target, inner, columns};
  const Panels cut = panels<Ops>(columns);
  const std::int64_t whole = inner / Ops::step;  // steps without a half
  for (std::int64_t panel = 0; panel < cut.count; ++panel) {
    const std::int64_t begin = cut.begin(panel) * lanes, end = cut.begin(panel + 1) * lanes, width = end - begin;
    for (std::int64_t n = begin; n < end; n += lanes) {
      std::int64_t step = 0;
      if (n + lanes <= columns) {
        for (; step + lanes <= whole; step += lanes) {
          Row square[lanes];
          for (int lane = 0; lane < lanes; ++lane) {
            std::memcpy(&square[lane], source + (n + lane) * stride + step * Ops::step, sizeof(Row));
          }
          transpose(square);
          for (int i = 0; i < lanes; ++i) std::memcpy(target + (step + i) * width + n - begin, &square[i], sizeof(Row));
        }
      }
      for (int lane = 0; lane < lanes; ++lane) {
        const bool padding = n + lane >= columns;
        const auto* row = source + (padding ? 0 : n + lane) * stride;
        for (std::int64_t at = step; at < packed.steps(); ++at) {
          const std::int64_t i = at * Ops::step;
          target[at * width + n - begin + lane] = padding ? 0 : Ops::unit(row + i, 1, inner - i);
        }
      }
    }
    target += packed.steps() * width;
  }
  return packed;
}

// One step of a tile: the outer product of a column of A and a row of B.
template <typename Ops, int width, bool half>
EQV_INLINE void add_step(const typename Ops::Stored* const (&a)[kTileRows], std::int64_t offset,
                         const typename Ops::Unit* b, typename Ops::V (&sum)[kTileRows][width]) {
  constexpr std::int64_t lanes = VectorOf<Sum<Ops>>::lanes;
  decltype(Ops::load_units(b)) right[width];
#pragma GCC unroll 8
  for (int j = 0; j < width; ++j) right[j] = Ops::load_units(b + j * lanes);
#pragma GCC unroll 8
  for (int row = 0; row < kTileRows; ++row) {
    const auto left = half ? Ops::spread_half(a[row] + offset) : Ops::spread(a[row] + offset);
#pragma GCC unroll 8
    for (int j = 0; j < width; ++j) sum[row][j] = Ops::multiply_add(left, right[j], sum[row][j]);
  }
}

// kTileRows rows of C by `width` vectors of one panel.
template <typename Ops, int width>
void tile(const typename Ops::Stored* const (&rows)[kTileRows], std::int64_t stride_step, const typename Ops::Unit* b,
          std::int64_t steps, bool half_last, Sum<Ops>* c, std::int64_t stride_c, bool accumulate) {
  constexpr std::int64_t lanes = VectorOf<Sum<Ops>>::lanes;
  const typename Ops::Stored* a[kTileRows];
  typename Ops::V sum[kTileRows][width];
#pragma GCC unroll 8
  for (int row = 0; row < kTileRows; ++row) {
    a[row] = rows[row];
#pragma GCC unroll 8
    for (int j = 0; j < width; ++j) sum[row][j] = typename Ops::V{};
  }
  const std::int64_t whole = steps - half_last;
  for (std::int64_t step = 0; step < whole; ++step, b += width * lanes) {
    add_step<Ops, width, false>(a, step * stride_step, b, sum);
  }
  if (half_last) add_step<Ops, width, true>(a, whole * stride_step, b, sum);
#pragma GCC unroll 8
  for (int row = 0; row < kTileRows; ++row) {
#pragma GCC unroll 8
    for (int j = 0; j < width; ++j) {
      Sum<Ops>* to = c + row * stride_c + j * lanes;
      store(to, accumulate ? load(to) + sum[row][j] : sum[row][j]);
    }
  }
}

template <typename Ops, typename... Arguments>
EQV_INLINE void tile_of_width(std::int64_t width, const Arguments&... arguments) {
  static_assert(kTileVectors == 2 || kTileVectors == 4);
  if (width == 1) return tile<Ops, 1>(arguments...);
  if (width == 2) return tile<Ops, 2>(arguments...);
  if constexpr (kTileVectors == 4) {
    if (width == 3) return tile<Ops, 3>(arguments...);
    return tile<Ops, 4>(arguments...);
  }
}

// C [rows, columns] = A B, or C += A B. C has attention_rows(rows) rows of stride_c >= attention_columns(columns).
// `padded`: the last pair of an odd inner dimension can be read whole, and its second half is finite.
template <typename Ops>
void product(const Left<typename Ops::Stored>& a, const Right<Ops>& b, Sum<Ops>* c, std::int64_t stride_c,
             bool accumulate, bool padded = false) {
  constexpr std::int64_t lanes = VectorOf<Sum<Ops>>::lanes;
  const Panels cut = panels<Ops>(b.columns);
  const std::int64_t steps = b.steps();
  for (std::int64_t panel = 0; panel < cut.count; ++panel) {
    const std::int64_t begin = cut.begin(panel) * lanes, width = cut.begin(panel + 1) - cut.begin(panel);
    for (std::int64_t step = 0; step == 0 || step < steps; step += kChain) {
      const bool last = step + kChain >= steps;
      const bool half_last = last && Ops::step > 1 && !padded && b.inner % Ops::step != 0;
      const std::int64_t chain = last ? steps - step : kChain;
      const auto* right = b.data + begin * steps + step * width * lanes;
      for (std::int64_t m = 0; m < a.rows; m += kTileRows) {
        const typename Ops::Stored* left[kTileRows];
        for (int row = 0; row < kTileRows; ++row) {  // a tile beyond the last row repeats it
          const std::int64_t at = m + row < a.rows ? m + row : a.rows - 1;
          left[row] = a.data + at * a.stride_row + step * a.stride_step;
        }
        tile_of_width<Ops>(width, left, a.stride_step, right, chain, half_last, c + m * stride_c + begin, stride_c,
                           accumulate || step > 0);
      }
    }
  }
}

}  // namespace
}  // namespace eqv::cpu
