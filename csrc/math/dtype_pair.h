// The pairs of dtypes that rules for tangents around a primal are compiled for.
#pragma once

#include "dtype.h"

namespace eqv {

// Tangents and primal alike, or bfloat16 tangents around a float32 primal.
enum class DtypePair { float64, float32, bfloat16, bfloat16_around_float32 };

namespace {

template <typename TangentStorage, typename PrimalStorage>
struct Storages {
  using Tangent = TangentStorage;
  using Primal = PrimalStorage;
};

// Calls function(Storages<...>{}) with the pair's storage types.
template <typename Function>
auto with_storages(DtypePair pair, const Function& function) {
  switch (pair) {
    case DtypePair::float64:
      return function(Storages<double, double>{});
    case DtypePair::float32:
      return function(Storages<float, float>{});
    case DtypePair::bfloat16:
      return function(Storages<Bfloat16, Bfloat16>{});
    default:
      return function(Storages<Bfloat16, float>{});
  }
}

}  // namespace
}  // namespace eqv
