// How the rules that work row by row are cut into tasks: a tile of consecutive rows with a block of consecutive
// tangents. What all tangents of a row share is read, or prepared, once for a tile, which fits the second-level cache;
// each tangent of a tile is one stretch of memory, long enough for the processor to fetch ahead. Torch-free.
#pragma once

#include <cstdint>

namespace eqv::cpu {

// task = tile * blocks + block. Every (row, tangent) is computed by itself, so its bits do not depend on the tiles.
struct RowTiles {
  std::int64_t R, K;
  std::int64_t rows;    // of a tile
  std::int64_t blocks;  // of tangents
};

struct Task {
  std::int64_t tile;
  std::int64_t row_begin, row_end;
  std::int64_t k_begin, k_end;
};

namespace {

// Rows [R, D] of `bytes` each, with K tangents: tiles large enough for memory to stream and many enough for all threads.
inline RowTiles row_tiles(std::int64_t R, std::int64_t K, std::int64_t bytes, std::int64_t threads) {
  constexpr std::int64_t tile_bytes = 128 * 1024;
  const std::int64_t wanted = 4 * threads;
  const auto at_least_one = [](std::int64_t value) { return value > 1 ? value : 1; };
  const auto at_most = [](std::int64_t value, std::int64_t limit) { return value < limit ? value : limit; };
  const std::int64_t rows = at_most(at_least_one(tile_bytes / bytes), at_least_one(R / wanted));
  const std::int64_t tiles = (R + rows - 1) / rows;
  return {R, K, rows, at_least_one(at_most(K, (wanted + tiles - 1) / tiles))};
}

inline std::int64_t task_count(const RowTiles& tiles) { return (tiles.R + tiles.rows - 1) / tiles.rows * tiles.blocks; }

inline Task task_at(const RowTiles& tiles, std::int64_t index) {
  const std::int64_t tile = index / tiles.blocks, block = index % tiles.blocks;
  const std::int64_t end = (tile + 1) * tiles.rows;
  return {tile, tile * tiles.rows, end < tiles.R ? end : tiles.R, tiles.K * block / tiles.blocks,
          tiles.K * (block + 1) / tiles.blocks};
}

}  // namespace
}  // namespace eqv::cpu
