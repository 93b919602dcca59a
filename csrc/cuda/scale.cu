// tangents * factor: a thread keeps its factors in registers and takes a range of the tangents.

#include "scale.cuh"

#include <algorithm>
#include <cstring>
#include <limits>

#include "launch.cuh"
#include "pack.cuh"

namespace eqv::cuda {
namespace {

constexpr int kScaleThreads = 256;
constexpr int kTogether = 4;  // tangents whose loads are in flight at once

// As `write`. In a loop as short as this kernel's, the compiler would take the pack apart and store it by elements.
template <int width, typename Storage>
__device__ __forceinline__ void write_whole(const Accumulator<Storage> (&values)[width], Storage* target) {
  if constexpr (width * sizeof(Storage) == sizeof(uint4)) {
    Pack<Storage, width> pack;
    write<width>(values, pack.element);
    uint4 whole;
    std::memcpy(&whole, &pack, sizeof whole);
    __stcg(reinterpret_cast<uint4*>(target), whole);
  } else {
    write<width>(values, target);
  }
}

template <typename Tangent, typename Primal, int width>
__global__ void __launch_bounds__(kScaleThreads)
    scale_kernel(const ScaleRows rows, const std::int64_t tangents_per_block) {
  using T = Accumulator<Primal>;
  const std::int64_t n = (static_cast<std::int64_t>(blockIdx.x) * kScaleThreads + threadIdx.x) * width;
  if (n >= rows.N) return;
  const std::int64_t k_begin = blockIdx.y * tangents_per_block;
  const std::int64_t k_end = min(k_begin + tangents_per_block, rows.K);
  T factor[width];
  read<width>(static_cast<const Primal*>(rows.factor) + n, factor);
  const auto* tangents = static_cast<const Tangent*>(rows.tangents) + n;
  auto* out = static_cast<Tangent*>(rows.out) + n;
  for (std::int64_t k = k_begin; k < k_end; k += kTogether) {
    // Past the last tangent the last one is read again and not written.
    T t[kTogether][width];
#pragma unroll
    for (int j = 0; j < kTogether; ++j) read<width>(tangents + min(k + j, k_end - 1) * rows.tangents_stride_k, t[j]);
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
#pragma unroll
      for (int i = 0; i < width; ++i) t[j][i] *= factor[i];
      if (k + j < k_end) write_whole<width>(t[j], out + (k + j) * rows.N);
    }
  }
}

bool takes_packs(const ScaleRows& rows, int width) {
  return pack_aligned(rows.tangents) && pack_aligned(rows.factor) && pack_aligned(rows.out) && rows.N % width == 0 &&
         rows.tangents_stride_k % width == 0;
}

template <typename Tangent, typename Primal, int width>
cudaError_t run(const ScaleRows& rows, cudaStream_t stream) {
  int processors = 0;
  if (const cudaError_t error = device_attribute(cudaDevAttrMultiProcessorCount, processors); error != cudaSuccess) {
    return error;
  }
  constexpr std::int64_t per_block = kScaleThreads * width;
  const std::int64_t blocks = (rows.N + per_block - 1) / per_block;
  if (blocks > std::numeric_limits<int>::max()) return cudaErrorInvalidValue;
  // Tangents are split until every multiprocessor has work.
  const std::int64_t wanted = std::max<std::int64_t>(1, 16 * static_cast<std::int64_t>(processors) / blocks);
  const std::int64_t groups = (rows.K + kTogether - 1) / kTogether;
  const std::int64_t split = std::min({groups, wanted, std::int64_t{65535}});
  const std::int64_t tangents_per_block = (groups + split - 1) / split * kTogether;
  const dim3 grid(static_cast<unsigned>(blocks),
                  static_cast<unsigned>((rows.K + tangents_per_block - 1) / tangents_per_block));
  return launch(scale_kernel<Tangent, Primal, width>, grid, kScaleThreads, 0, stream, rows, tangents_per_block);
}

}  // namespace

cudaError_t scale_tangents(DtypePair dtypes, const ScaleRows& rows, cudaStream_t stream) {
  return with_storages(dtypes, [&](auto storages) {
    using Tangent = typename decltype(storages)::Tangent;
    using Primal = typename decltype(storages)::Primal;
    constexpr int width = kPackWidth<Tangent>;
    return takes_packs(rows, width) ? run<Tangent, Primal, width>(rows, stream) : run<Tangent, Primal, 1>(rows, stream);
  });
}

}  // namespace eqv::cuda
