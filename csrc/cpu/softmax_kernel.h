// Entry points of the per-ISA kernels of softmax's rule; torch-free.
#pragma once

#include <cstdint>

#include "../math/dtype_pair.h"
#include "../math/softmax_rows.h"
#include "row_tiles.h"

namespace eqv::cpu {

#define EQV_DECLARE(VARIANT)                                                             \
  namespace VARIANT {                                                                    \
  void softmax_rule(DtypePair dtypes, const SoftmaxRows& rows, const RowTiles& tiles,    \
                    std::int64_t task_begin, std::int64_t task_end);                     \
  }
EQV_DECLARE(base)
EQV_DECLARE(avx2)
EQV_DECLARE(avx512)
#undef EQV_DECLARE

}  // namespace eqv::cpu
