// LayerNorm's and RMSNorm's derivative rules: one thread block for one row and a range of its tangents.
//
// A thread meets the same columns in every pass, so xhat and the weight's factor, which all K tangents share, lie in
// shared memory without a barrier. The rule needs one or two sums over a tangent's row before it can write; `kTangents`
// tangents go through one block-wide reduction together, and their second reading comes from the cache.

#include "norm.cuh"

#include "pack.cuh"
#include "row_blocks.cuh"

namespace eqv::cuda {
namespace {

using math::Rule;

// Shared memory for the row: what a block has without asking for more, less the reductions'.
constexpr std::int64_t kRowBytes = 40 * 1024;

// The row's xhat and factor (weight times rstd for jvp, weight for vjp), kept in shared memory or, for rows too long
// for it, computed again at each use.
template <Rule rule, bool centred, typename Primal, int width>
struct SharedRow {
  using T = Accumulator<Primal>;
  const Primal* x;
  const Primal* weight;
  T mean, rstd;
  T* kept_xhat;  // [D] or null
  T* kept_factor;

  __device__ __forceinline__ void compute(std::int64_t d, T (&xhat)[width], T (&factor)[width]) const {
    read<width>(x + d, xhat);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      xhat[i] = math::normalised<centred>(xhat[i], mean, rstd);
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

template <Rule rule, bool centred, typename Tangent, typename Primal, int width>
__global__ void __launch_bounds__(kMaxThreads)
    norm_kernel(const NormRows rows, const std::int64_t tangents_per_block, const bool keep_row) {
  using T = Accumulator<Primal>;
  constexpr int kSums = centred ? 2 : 1;
  __shared__ T reduction[2][kMaxWarps][kSums * kTangents];

  const std::int64_t r = blockIdx.x;
  const std::int64_t k_begin = blockIdx.y * tangents_per_block;
  const std::int64_t k_end = min(k_begin + tangents_per_block, rows.K);
  const std::int64_t step = static_cast<std::int64_t>(blockDim.x) * width;
  const std::int64_t first = static_cast<std::int64_t>(threadIdx.x) * width;

  T* shared_row = reinterpret_cast<T*>(dynamic_shared());
  SharedRow<rule, centred, Primal, width> row{
      static_cast<const Primal*>(rows.x) + r * rows.x_stride_r,
      static_cast<const Primal*>(rows.weight),
      centred ? static_cast<const T*>(rows.mean)[r] : T(0),
      static_cast<const T*>(rows.rstd)[r],
      keep_row ? shared_row : nullptr,
      keep_row ? shared_row + rows.D : nullptr,
  };
  if (keep_row) {
    for (std::int64_t d = first; d < rows.D; d += step) row.keep(d);
  }

  const auto* tangents = static_cast<const Tangent*>(rows.tangents) + r * rows.tangents_stride_r;
  const auto* residual = static_cast<const Tangent*>(rows.residual) + r * rows.residual_stride_r;
  auto* out = static_cast<Tangent*>(rows.out) + r * rows.D;
  int buffer = 0;
  for (std::int64_t k = k_begin; k < k_end; k += kTangents, buffer ^= 1) {
    // Past the last tangent the last one is read again and not written: without a branch, all loads are in flight at
    // once.
    const auto read_all = [&](const Tangent* from, std::int64_t stride_k, std::int64_t d, T(&t)[kTangents][width]) {
#pragma unroll
      for (int j = 0; j < kTangents; ++j) read<width>(from + min(k + j, k_end - 1) * stride_k + d, t[j]);
    };

    math::RowSums<centred, T> partial[kTangents];
    for (std::int64_t d = first; d < rows.D; d += step) {
      T t[kTangents][width];
      read_all(tangents, rows.tangents_stride_k, d, t);
      T xhat[width], factor[width];
      row.get(d, xhat, factor);
#pragma unroll
      for (int j = 0; j < kTangents; ++j) {
#pragma unroll
        for (int i = 0; i < width; ++i) partial[j].add(math::direction<rule>(t[j][i], factor[i]), xhat[i]);
      }
    }

    T means[kSums * kTangents];
#pragma unroll
    for (int j = 0; j < kTangents; ++j) {
      means[j] = partial[j].along;
      if constexpr (centred) means[kTangents + j] = partial[j].plain;
    }
    block_sums(means, reduction[buffer]);
#pragma unroll
    for (int j = 0; j < kSums * kTangents; ++j) means[j] /= static_cast<T>(rows.D);

    for (std::int64_t d = first; d < rows.D; d += step) {
      T t[kTangents][width];
      read_all(tangents, rows.tangents_stride_k, d, t);
      T xhat[width], factor[width];
      row.get(d, xhat, factor);
#pragma unroll
      for (int j = 0; j < kTangents; ++j) {
#pragma unroll
        for (int i = 0; i < width; ++i) {
          const T v = math::direction<rule>(t[j][i], factor[i]);
          const T mean_plain = centred ? means[(kSums - 1) * kTangents + j] : T(0);
          t[j][i] = math::projected<centred>(v, xhat[i], mean_plain, means[j]) *
                    (rule == Rule::jvp ? factor[i] : row.rstd);
        }
      }
      if constexpr (rule == Rule::vjp) {
        if (rows.residual != nullptr) {
          T skipped[kTangents][width];
          read_all(residual, rows.residual_stride_k, d, skipped);
#pragma unroll
          for (int j = 0; j < kTangents; ++j) {
#pragma unroll
            for (int i = 0; i < width; ++i) t[j][i] += skipped[j][i];
          }
        }
      }
#pragma unroll
      for (int j = 0; j < kTangents; ++j) {
        if (k + j < k_end) write<width>(t[j], out + (k + j) * rows.R * rows.D + d);
      }
    }
  }
}

bool takes_packs(const NormRows& rows, int width) {
  return pack_aligned(rows.tangents) && pack_aligned(rows.x) && pack_aligned(rows.weight) &&
         pack_aligned(rows.residual) && pack_aligned(rows.out) && rows.D % width == 0 &&
         rows.tangents_stride_k % width == 0 && rows.tangents_stride_r % width == 0 && rows.x_stride_r % width == 0 &&
         rows.residual_stride_k % width == 0 && rows.residual_stride_r % width == 0;
}

template <Rule rule, bool centred, typename Tangent, typename Primal, int width>
cudaError_t run(const NormRows& rows, cudaStream_t stream) {
  RowBlocks blocks;
  if (const cudaError_t error = make_row_blocks(rows.K, rows.R, rows.D, width, blocks); error != cudaSuccess) {
    return error;
  }
  const std::int64_t row_bytes = 2 * rows.D * static_cast<std::int64_t>(sizeof(Accumulator<Primal>));
  const bool keep_row = row_bytes <= kRowBytes;
  return launch(norm_kernel<rule, centred, Tangent, Primal, width>, blocks.grid, blocks.threads,
                keep_row ? row_bytes : 0, stream, rows, blocks.tangents_per_block, keep_row);
}

template <Rule rule, bool centred>
cudaError_t run(DtypePair dtypes, const NormRows& rows, cudaStream_t stream) {
  return with_storages(dtypes, [&](auto storages) {
    using Tangent = typename decltype(storages)::Tangent;
    using Primal = typename decltype(storages)::Primal;
    constexpr int width = kPackWidth<Tangent>;
    return takes_packs(rows, width) ? run<rule, centred, Tangent, Primal, width>(rows, stream)
                                    : run<rule, centred, Tangent, Primal, 1>(rows, stream);
  });
}

}  // namespace

cudaError_t norm_rule(math::Rule rule, DtypePair dtypes, const NormRows& rows, cudaStream_t stream) {
  if (rows.mean != nullptr) {
    return rule == Rule::jvp ? run<Rule::jvp, true>(dtypes, rows, stream) : run<Rule::vjp, true>(dtypes, rows, stream);
  }
  return rule == Rule::jvp ? run<Rule::jvp, false>(dtypes, rows, stream) : run<Rule::vjp, false>(dtypes, rows, stream);
}

}  // namespace eqv::cuda
