// Random sketches on the CPU. The loop over blocks vectorises for any instruction set, and x86-64's base set outruns what
// consumes the vectors, so there is one variant.

#include <cstring>

#include "sketch_kernel.h"

namespace eqv::cpu {
namespace {

constexpr std::int64_t kGroup = 16;  // blocks that one vectorised loop makes
constexpr std::int64_t kGroupNumbers = kGroup * static_cast<std::int64_t>(kPerBlock);
static_assert(kSketchTile % kGroupNumbers == 0);

template <Sketch kind, typename Storage>
inline void group(const SketchRows& rows, std::uint64_t vector, std::uint64_t block, Storage* __restrict out) {
  for (std::int64_t i = 0; i < kGroup; ++i) {
    const Values4 values = sketch_block<kind>(rows, vector, block + static_cast<std::uint64_t>(i));
    for (int j = 0; j < 4; ++j) out[4 * i + j] = values.value[j];
  }
}

template <Sketch kind, typename Storage>
void run(const SketchRows& given, std::int64_t task_begin, std::int64_t task_end) {
  const SketchRows rows = given;  // a copy: writes to `out` cannot change it, which the compiler must know
  const std::int64_t tasks_per_row = sketch_tasks(rows) / rows.count;
  // Where the first group begins, counted from the first coordinate asked for: not positive.
  const std::int64_t origin = -static_cast<std::int64_t>(rows.offset % kPerBlock);
  for (std::int64_t task = task_begin; task < task_end; ++task) {
    const std::int64_t row = task / tasks_per_row;
    const std::uint64_t vector = rows.start + static_cast<std::uint64_t>(row);
    Storage* out = static_cast<Storage*>(rows.out) + row * rows.dim;
    std::int64_t block = task % tasks_per_row * (kSketchTile / static_cast<std::int64_t>(kPerBlock));
    for (int i = 0; i < kSketchTile / kGroupNumbers; ++i, block += kGroup) {
      const std::int64_t begin = origin + 4 * block;
      if (begin >= rows.dim) break;
      const std::uint64_t counter = first_block(rows) + static_cast<std::uint64_t>(block);
      if (begin >= 0 && begin + kGroupNumbers <= rows.dim) {
        group<kind>(rows, vector, counter, out + begin);
        continue;
      }
      Storage numbers[kGroupNumbers];
      group<kind>(rows, vector, counter, numbers);
      const std::int64_t from = begin < 0 ? -begin : 0;
      const std::int64_t to = begin + kGroupNumbers < rows.dim ? kGroupNumbers : rows.dim - begin;
      std::memcpy(out + begin + from, numbers + from, static_cast<std::size_t>(to - from) * sizeof(Storage));
    }
  }
}

template <Sketch kind>
void run(Dtype dtype, const SketchRows& rows, std::int64_t task_begin, std::int64_t task_end) {
  if (dtype == Dtype::float64) {
    run<kind, double>(rows, task_begin, task_end);
  } else {
    run<kind, float>(rows, task_begin, task_end);
  }
}

}  // namespace

std::int64_t sketch_tasks(const SketchRows& rows) {
  constexpr std::int64_t blocks = kSketchTile / static_cast<std::int64_t>(kPerBlock);
  return rows.count * ((block_count(rows) + blocks - 1) / blocks);
}

void sketch(Dtype dtype, Sketch kind, const SketchRows& rows, std::int64_t task_begin, std::int64_t task_end) {
  if (kind == Sketch::gaussian) {
    run<Sketch::gaussian>(dtype, rows, task_begin, task_end);
  } else {
    run<Sketch::sign>(dtype, rows, task_begin, task_end);
  }
}

}  // namespace eqv::cpu
