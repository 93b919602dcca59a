// Entry points of the per-ISA kernels of tangents * factor; torch-free.
#pragma once

#include <cstdint>

#include "../math/dtype_pair.h"
#include "../math/scale_rows.h"

namespace eqv::cpu {

#define EQV_DECLARE(VARIANT)                                                                         \
  namespace VARIANT {                                                                                \
  /* Tasks are tiles of that many elements, each with all K tangents. */                             \
  void scale_rule(DtypePair dtypes, const ScaleRows& rows, std::int64_t tile, std::int64_t task_begin, \
                  std::int64_t task_end);                                                            \
  }
EQV_DECLARE(base)
EQV_DECLARE(avx2)
EQV_DECLARE(avx512)
#undef EQV_DECLARE

}  // namespace eqv::cpu
