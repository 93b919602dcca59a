// How rules that need sums over rows are spread over thread blocks: a block has one row and a range of its tangents.
#pragma once

#include <algorithm>
#include <cstdint>

#include "launch.cuh"
#include "reduce.cuh"

namespace eqv::cuda {
namespace {

// Tangents that go through one block-wide reduction together.
constexpr int kTangents = 4;
constexpr int kMaxThreads = kWarp * kMaxWarps;

struct RowBlocks {
  dim3 grid;  // rows, ranges of tangents
  unsigned threads;
  std::int64_t tangents_per_block;
};

// Many rows: one block takes all tangents of a row and prepares it once. Few rows: their tangents are spread until
// every multiprocessor has work. The split does not change any result.
inline cudaError_t make_row_blocks(std::int64_t K, std::int64_t R, std::int64_t D, int width, RowBlocks& blocks) {
  int processors = 0;
  if (const cudaError_t error = device_attribute(cudaDevAttrMultiProcessorCount, processors); error != cudaSuccess) {
    return error;
  }
  const std::int64_t packs = (D + width - 1) / width;
  const std::int64_t groups = (K + kTangents - 1) / kTangents;
  const std::int64_t wanted = std::max<std::int64_t>(1, 8 * static_cast<std::int64_t>(processors) / R);
  const std::int64_t split = std::min({groups, wanted, std::int64_t{65535}});
  blocks.threads = static_cast<unsigned>(std::min<std::int64_t>(kMaxWarps, (packs + kWarp - 1) / kWarp)) * kWarp;
  blocks.tangents_per_block = (groups + split - 1) / split * kTangents;
  blocks.grid = dim3(static_cast<unsigned>(R),
                     static_cast<unsigned>((K + blocks.tangents_per_block - 1) / blocks.tangents_per_block));
  return cudaSuccess;
}

}  // namespace
}  // namespace eqv::cuda
