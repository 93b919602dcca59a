// LayerNorm's derivative rules: one thread block for one row and a range of its tangents.
//
// A thread meets the same columns in every pass, so xhat and the weight's factor, which all K tangents share, lie in
// shared memory without a barrier. The rule needs two sums over a tangent's row before it can write; `kTangents`
// tangents go through one block-wide reduction together, and their second reading comes from the cache.

#include "layer_norm.cuh"

#include <algorithm>
#include <cstdint>

#include "../math/bfloat16.h"
#include "reduce.cuh"

namespace eqv::cuda {
namespace {

using math::Rule;

constexpr int kTangents = 4;
constexpr int kMaxThreads = kWarp * kMaxWarps;
// Without opting in to more, a block has 48 KiB of shared memory; the rest is for the reductions.
constexpr std::int64_t kRowBytes = 40 * 1024;

// `width` consecutive elements, read and written as one 16-byte access where width * sizeof(Storage) is 16.
template <typename Storage, int width>
struct alignas(sizeof(Storage) * width) Pack {
  Storage element[width];
};

template <int width, typename Storage>
__device__ __forceinline__ void read(const Storage* source, Accumulator<Storage> (&values)[width]) {
  const auto pack = *reinterpret_cast<const Pack<Storage, width>*>(source);
#pragma unroll
  for (int i = 0; i < width; ++i) values[i] = math::widen(pack.element[i]);
}

template <int width, typename Storage>
__device__ __forceinline__ void write(const Accumulator<Storage> (&values)[width], Storage* target) {
  Pack<Storage, width> pack;
#pragma unroll
  for (int i = 0; i < width; ++i) math::narrow(values[i], pack.element[i]);
  *reinterpret_cast<Pack<Storage, width>*>(target) = pack;
}

// The row's xhat and factor (weight times rstd for jvp, weight for vjp), kept in shared memory or, for rows too long
// for it, computed again at each use.
template <Rule rule, typename Storage, int width>
struct SharedRow {
  using T = Accumulator<Storage>;
  const Storage* x;
  const Storage* weight;
  T mean, rstd;
  T* kept_xhat;  // [D] or null
  T* kept_factor;

  __device__ __forceinline__ void compute(std::int64_t d, T (&xhat)[width], T (&factor)[width]) const {
    read<width>(x + d, xhat);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      xhat[i] = math::normalised(xhat[i], mean, rstd);
      factor[i] = T(1);
    }
    if (weight != nullptr) read<width>(weight + d, factor);
    if constexpr (rule == Rule::jvp) {
#pragma unroll
      for (int i = 0; i < width; ++i) factor[i] *= rstd;
    }
  }

  __device__ __forceinline__ void keep(std::int64_t d) const {
    T xhat[width], factor[width];
    compute(d, xhat, factor);
    write<width>(xhat, kept_xhat + d);
    write<width>(factor, kept_factor + d);
  }

  __device__ __forceinline__ void get(std::int64_t d, T (&xhat)[width], T (&factor)[width]) const {
    if (kept_xhat == nullptr) {
      compute(d, xhat, factor);
    } else {
      read<width>(kept_xhat + d, xhat);
      read<width>(kept_factor + d, factor);
    }
  }
};

template <Rule rule, typename Storage, int width>
__global__ void __launch_bounds__(kMaxThreads)
    rule_kernel(const LayerNormRows rows, const std::int64_t tangents_per_block, const bool keep_row) {
  using T = Accumulator<Storage>;
  extern __shared__ __align__(32) unsigned char shared_row[];
  __shared__ T reduction[2][kMaxWarps][2 * kTangents];

  const std::int64_t r = blockIdx.x;
  const std::int64_t k_begin = blockIdx.y * tangents_per_block;
  const std::int64_t k_end = min(k_begin + tangents_per_block, rows.K);
  const std::int64_t step = static_cast<std::int64_t>(blockDim.x) * width;
  const std::int64_t first = static_cast<std::int64_t>(threadIdx.x) * width;

  SharedRow<rule, Storage, width> row{
      static_cast<const Storage*>(rows.x) + r * rows.x_stride_r,
      static_cast<const Storage*>(rows.weight),
      static_cast<const T*>(rows.mean)[r],
      static_cast<const T*>(rows.rstd)[r],
      keep_row ? reinterpret_cast<T*>(shared_row) : nullptr,
      keep_row ? reinterpret_cast<T*>(shared_row) + rows.D : nullptr,
  };
  if (keep_row) {
    for (std::int64_t d = first; d < rows.D; d += step) row.keep(d);
  }

  const auto* tangents = static_cast<const Storage*>(rows.tangents) + r * rows.tangents_stride_r;
  auto* out = static_cast<Storage*>(rows.out) + r * rows.D;
  int buffer = 0;
  for (std::int64_t k = k_begin; k < k_end; k += kTangents, buffer ^= 1) {
    // Past the last tangent the last one is read again and not written: without a branch, all loads are in flight at
    // once.
    const auto read_tangents = [&](std::int64_t d, T(&t)[kTangents][width]) {
#pragma unroll
      for (int j = 0; j < kTangents; ++j) {
        read<width>(tangents + min(k + j, k_end - 1) * rows.tangents_stride_k + d, t[j]);
      }
    };

    math::RowSums<T> partial[kTangents];
    for (std::int64_t d = first; d < rows.D; d += step) {
      T t[kTangents][width];
      read_tangents(d, t);
      T xhat[width], factor[width];
      row.get(d, xhat, factor);
#pragma unroll
      for (int j = 0; j < kTangents; ++j) {
#pragma unroll
        for (int i = 0; i < width; ++i) partial[j].add(math::direction<rule>(t[j][i], factor[i]), xhat[i]);
      }
    }

    T sums[2 * kTangents];
#pragma unroll
    for (int j = 0; j < kTangents; ++j) {
      sums[2 * j] = partial[j].plain;
      sums[2 * j + 1] = partial[j].along;
    }
    block_sums(sums, reduction[buffer]);
#pragma unroll
    for (int j = 0; j < 2 * kTangents; ++j) sums[j] /= static_cast<T>(rows.D);

    for (std::int64_t d = first; d < rows.D; d += step) {
      T t[kTangents][width];
      read_tangents(d, t);
      T xhat[width], factor[width];
      row.get(d, xhat, factor);
#pragma unroll
      for (int j = 0; j < kTangents; ++j) {
#pragma unroll
        for (int i = 0; i < width; ++i) {
          const T v = math::direction<rule>(t[j][i], factor[i]);
          t[j][i] = math::projected(v, xhat[i], sums[2 * j], sums[2 * j + 1]) *
                    (rule == Rule::jvp ? factor[i] : row.rstd);
        }
        if (k + j < k_end) write<width>(t[j], out + (k + j) * rows.R * rows.D + d);
      }
    }
  }
}

template <typename Storage>
bool takes_packs(const LayerNormRows& rows, int width) {
  const auto aligned = [](const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; };
  return aligned(rows.tangents) && aligned(rows.x) && aligned(rows.weight) && aligned(rows.out) && rows.D % width == 0 &&
         rows.tangents_stride_k % width == 0 && rows.tangents_stride_r % width == 0 && rows.x_stride_r % width == 0;
}

template <Rule rule, typename Storage, int width>
cudaError_t launch(const LayerNormRows& rows, cudaStream_t stream) {
  const std::int64_t packs = (rows.D + width - 1) / width;
  const int warps = static_cast<int>(std::min<std::int64_t>(kMaxWarps, (packs + kWarp - 1) / kWarp));

  int device = 0, processors = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
      error != cudaSuccess) {
    return error;
  }
  // Many rows: one block takes all tangents of a row and prepares it once. Few rows: their tangents are spread until
  // every multiprocessor has work. The split does not change any result.
  const std::int64_t groups = (rows.K + kTangents - 1) / kTangents;
  const std::int64_t wanted = std::max<std::int64_t>(1, 8 * static_cast<std::int64_t>(processors) / rows.R);
  const std::int64_t split = std::min({groups, wanted, std::int64_t{65535}});
  const std::int64_t tangents_per_block = (groups + split - 1) / split * kTangents;

  const std::int64_t row_bytes = 2 * rows.D * static_cast<std::int64_t>(sizeof(Accumulator<Storage>));
  const bool keep_row = row_bytes <= kRowBytes;
  const dim3 grid(static_cast<unsigned>(rows.R),
                  static_cast<unsigned>((rows.K + tangents_per_block - 1) / tangents_per_block));
  rule_kernel<rule, Storage, width><<<grid, warps * kWarp, keep_row ? row_bytes : 0, stream>>>(
      rows, tangents_per_block, keep_row);
  return cudaGetLastError();
}

template <Rule rule, typename Storage>
cudaError_t launch(const LayerNormRows& rows, cudaStream_t stream) {
  constexpr int width = 16 / sizeof(Storage);
  return takes_packs<Storage>(rows, width) ? launch<rule, Storage, width>(rows, stream)
                                           : launch<rule, Storage, 1>(rows, stream);
}

template <Rule rule>
cudaError_t launch(Dtype dtype, const LayerNormRows& rows, cudaStream_t stream) {
  switch (dtype) {
    case Dtype::float64:
      return launch<rule, double>(rows, stream);
    case Dtype::float32:
      return launch<rule, float>(rows, stream);
    case Dtype::bfloat16:
      return launch<rule, Bfloat16>(rows, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t layer_norm_rule(math::Rule rule, Dtype dtype, const LayerNormRows& rows, cudaStream_t stream) {
  return rule == Rule::jvp ? launch<Rule::jvp>(dtype, rows, stream) : launch<Rule::vjp>(dtype, rows, stream);
}

}  // namespace eqv::cuda
