// Random sketches: a thread makes the four numbers of one counter, then those of a counter a whole grid further.

#include "sketch.cuh"

#include <algorithm>

#include "launch.cuh"
#include "pack.cuh"

namespace eqv::cuda {
namespace {

constexpr int kSketchThreads = 256;

// `packed`: every block of four lies within the coordinates asked for, and where 16-byte accesses may write it.
template <Sketch kind, typename Storage, bool packed>
__global__ void __launch_bounds__(kSketchThreads) sketch_kernel(const SketchRows rows) {
  const std::int64_t blocks = block_count(rows);
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kSketchThreads + threadIdx.x;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kSketchThreads;
  // One division for all steps.
  const std::int64_t row_step = step / blocks, block_step = step % blocks;
  std::int64_t row = thread / blocks, block = thread % blocks;
  while (row < rows.count) {
    const std::uint64_t counter = first_block(rows) + static_cast<std::uint64_t>(block);
    const Values4 values = sketch_block<kind>(rows, rows.start + static_cast<std::uint64_t>(row), counter);
    auto* out = static_cast<Storage*>(rows.out) + row * rows.dim;
    const std::int64_t begin = 4 * block - static_cast<std::int64_t>(rows.offset % kPerBlock);
    Storage numbers[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) numbers[i] = values.value[i];
    if constexpr (packed) {
      write<4>(numbers, out + begin);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (begin + i >= 0 && begin + i < rows.dim) out[begin + i] = numbers[i];
      }
    }
    row += row_step;
    block += block_step;
    if (block >= blocks) {
      block -= blocks;
      ++row;
    }
  }
}

template <Sketch kind, typename Storage>
cudaError_t run(const SketchRows& rows, cudaStream_t stream) {
  int processors = 0;
  if (const cudaError_t error = device_attribute(cudaDevAttrMultiProcessorCount, processors); error != cudaSuccess) {
    return error;
  }
  const std::int64_t needed = (rows.count * block_count(rows) + kSketchThreads - 1) / kSketchThreads;
  const dim3 grid(static_cast<unsigned>(std::min(needed, 32 * static_cast<std::int64_t>(processors))));
  const bool packed = pack_aligned(rows.out) && rows.dim % 4 == 0 && rows.offset % kPerBlock == 0;
  return packed ? launch(sketch_kernel<kind, Storage, true>, grid, kSketchThreads, 0, stream, rows)
                : launch(sketch_kernel<kind, Storage, false>, grid, kSketchThreads, 0, stream, rows);
}

template <Sketch kind>
cudaError_t run(Dtype dtype, const SketchRows& rows, cudaStream_t stream) {
  return dtype == Dtype::float64 ? run<kind, double>(rows, stream) : run<kind, float>(rows, stream);
}

}  // namespace

cudaError_t sketch(Dtype dtype, Sketch kind, const SketchRows& rows, cudaStream_t stream) {
  return kind == Sketch::gaussian ? run<Sketch::gaussian>(dtype, rows, stream)
                                  : run<Sketch::sign>(dtype, rows, stream);
}

}  // namespace eqv::cuda
