// The derivative rules of LayerNorm and RMSNorm for one row, in terms that a scalar, a SIMD vector and a CUDA thread
// share.
//
//   LayerNorm (centred), xhat = (x - mean) rstd        RMSNorm, xhat = x rstd
//   jvp:  w rstd (t - mean(t) - xhat mean(t xhat))     w rstd (t - xhat mean(t xhat))
//   vjp:  rstd (g - mean(g) - xhat mean(g xhat))       rstd (g - xhat mean(g xhat)),    g = w ct
//
// (Ba, Kiros, Hinton, arXiv 1607.06450, eq. 4, and Zhang, Sennrich, arXiv 1910.07467, eq. 4, by the chain rule.) All are
// a symmetric projection of a direction v, with the weight applied after it (jvp) or before it (vjp).
#pragma once

#include "host_device.h"

namespace eqv::math {

enum class Rule { jvp, vjp };

namespace {

template <bool centred, typename V>
EQV_INLINE V normalised(V x, V mean, V rstd) {
  if constexpr (centred) return (x - mean) * rstd;
  return x * rstd;
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

// The sums over a row that a direction v needs.
template <bool centred, typename V>
struct RowSums {
  V plain{};  // sum of v; unused where rows are not centred
  V along{};  // sum of v xhat

  EQV_INLINE void add(V v, V xhat) {
    if constexpr (centred) plain += v;
    along += v * xhat;
  }
};

template <bool centred, typename V>
EQV_INLINE V projected(V v, V xhat, V mean_plain, V mean_along) {
  if constexpr (centred) v = v - mean_plain;
  return v - xhat * mean_along;
}

}  // namespace
}  // namespace eqv::math
