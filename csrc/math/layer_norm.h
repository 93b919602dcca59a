// The derivative rules of LayerNorm for one row, in terms that a scalar, a SIMD vector and a CUDA thread share.
//
//   xhat = (x - mean) rstd
//   jvp:  w rstd (t - mean(t) - xhat mean(t xhat))
//   vjp:  rstd (g - mean(g) - xhat mean(g xhat)),  g = w ct
//
// (Ba, Kiros, Hinton, arXiv 1607.06450, eq. 4, by the chain rule.) Both are the same symmetric projection of a
// direction v, with the weight applied after it (jvp) or before it (vjp).
#pragma once

#include "host_device.h"

namespace eqv::math {

enum class Rule { jvp, vjp };

namespace {

template <typename V>
EQV_INLINE V normalised(V x, V mean, V rstd) {
  return (x - mean) * rstd;
}

// The direction that is projected.
template <Rule rule, typename V>
EQV_INLINE V direction(V tangent, V weight) {
  if constexpr (rule == Rule::vjp) return tangent * weight;
  return tangent;
}

// What the projected direction is scaled by.
template <Rule rule, typename V>
EQV_INLINE V scale(V weight, V rstd) {
  if constexpr (rule == Rule::jvp) return weight * rstd;
  return rstd;
}

// The two sums over a row that a direction v needs.
template <typename V>
struct RowSums {
  V plain{};  // sum of v
  V along{};  // sum of v xhat

  EQV_INLINE void add(V v, V xhat) {
    plain += v;
    along += v * xhat;
  }
};

template <typename V>
EQV_INLINE V projected(V v, V xhat, V mean_plain, V mean_along) {
  return (v - mean_plain) - xhat * mean_along;
}

}  // namespace
}  // namespace eqv::math
