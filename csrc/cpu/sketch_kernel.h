// Entry point of the CPU kernel of random sketches; torch-free.
#pragma once

#include <cstdint>

#include "../math/dtype.h"
#include "../math/sketch_rows.h"

namespace eqv::cpu {

// Coordinates that a task makes at most.
constexpr std::int64_t kSketchTile = 4096;

std::int64_t sketch_tasks(const SketchRows& rows);
void sketch(Dtype dtype, Sketch kind, const SketchRows& rows, std::int64_t task_begin, std::int64_t task_end);

}  // namespace eqv::cpu
