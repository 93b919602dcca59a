// Softmax's derivative rule: one thread block for one row of probabilities and a range of its tangents.

#include "softmax.cuh"

#include "pack.cuh"
#include "row_blocks.cuh"

namespace eqv::cuda {
namespace {

template <typename Tangent, typename Primal, int width>
__global__ void __launch_bounds__(kMaxThreads)
    softmax_kernel(const SoftmaxRows rows, const std::int64_t tangents_per_block) {
  using T = Accumulator<Primal>;
  __shared__ T reduction[2][kMaxWarps][kTangents];

  const std::int64_t r = blockIdx.x;
  const std::int64_t k_begin = blockIdx.y * tangents_per_block;
  const std::int64_t k_end = min(k_begin + tangents_per_block, rows.K);
  const std::int64_t step = static_cast<std::int64_t>(blockDim.x) * width;
  const std::int64_t first = static_cast<std::int64_t>(threadIdx.x) * width;

  const auto* p_row = static_cast<const Primal*>(rows.p) + r * rows.p_stride_r;
  const auto* tangents = static_cast<const Tangent*>(rows.tangents) + r * rows.tangents_stride_r;
  auto* out = static_cast<Tangent*>(rows.out) + r * rows.D;
  int buffer = 0;
  for (std::int64_t k = k_begin; k < k_end; k += kTangents, buffer ^= 1) {
    // Past the last tangent the last one is read again and not written.
    const auto read_both = [&](std::int64_t d, T(&p)[width], T(&t)[kTangents][width]) {
      read<width>(p_row + d, p);
#pragma unroll
      for (int j = 0; j < kTangents; ++j) {
        read<width>(tangents + min(k + j, k_end - 1) * rows.tangents_stride_k + d, t[j]);
      }
    };

    T sums[kTangents] = {};
    for (std::int64_t d = first; d < rows.D; d += step) {
      T p[width], t[kTangents][width];
      read_both(d, p, t);
#pragma unroll
      for (int j = 0; j < kTangents; ++j) {
#pragma unroll
        for (int i = 0; i < width; ++i) sums[j] += p[i] * t[j][i];
      }
    }
    block_sums(sums, reduction[buffer]);

    for (std::int64_t d = first; d < rows.D; d += step) {
      T p[width], t[kTangents][width];
      read_both(d, p, t);
#pragma unroll
      for (int j = 0; j < kTangents; ++j) {
#pragma unroll
        for (int i = 0; i < width; ++i) t[j][i] = p[i] * (t[j][i] - sums[j]);
        if (k + j < k_end) write<width>(t[j], out + (k + j) * rows.R * rows.D + d);
      }
    }
  }
}

bool takes_packs(const SoftmaxRows& rows, int width) {
  return pack_aligned(rows.tangents) && pack_aligned(rows.p) && pack_aligned(rows.out) && rows.D % width == 0 &&
         rows.tangents_stride_k % width == 0 && rows.tangents_stride_r % width == 0 && rows.p_stride_r % width == 0;
}

template <typename Tangent, typename Primal, int width>
cudaError_t run(const SoftmaxRows& rows, cudaStream_t stream) {
  RowBlocks blocks;
  if (const cudaError_t error = make_row_blocks(rows.K, rows.R, rows.D, width, blocks); error != cudaSuccess) {
    return error;
  }
  return launch(softmax_kernel<Tangent, Primal, width>, blocks.grid, blocks.threads, 0, stream, rows,
                blocks.tangents_per_block);
}

}  // namespace

cudaError_t softmax_rule(DtypePair dtypes, const SoftmaxRows& rows, cudaStream_t stream) {
  return with_storages(dtypes, [&](auto storages) {
    using Tangent = typename decltype(storages)::Tangent;
    using Primal = typename decltype(storages)::Primal;
    constexpr int width = kPackWidth<Tangent>;
    return takes_packs(rows, width) ? run<Tangent, Primal, width>(rows, stream) : run<Tangent, Primal, 1>(rows, stream);
  });
}

}  // namespace eqv::cuda
