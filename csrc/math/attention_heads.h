// The arguments of attention's derivative rules as the torch-free kernels take them.
#pragma once

#include <cstdint>

namespace eqv {

// How CUDA kernels multiply float32: exactly, rounded to TF32, or as three TF32 products of split operands. Nothing
// else looks at it.
enum class Precision { ieee, tf32, tf32x3 };

// A tensor [K, B, H, rows, width], or [B, H, rows, width] with stride_k zero. Strides are in elements; the last
// dimension is contiguous. Any stride may be zero (expanded tensors stay unexpanded).
template <typename Pointer>
struct Heads {
  Pointer data;
  std::int64_t stride_k, stride_b, stride_h, stride_row;
};
using HeadsIn = Heads<const void*>;
using HeadsOut = Heads<void*>;

// What both rules share. All tensors have one dtype; P has rows of zeros where a query sees no key.
struct AttentionPrimal {
  std::int64_t K, B, H, L, S, E, F;
  HeadsIn q;  // [B, H, L, E]
  HeadsIn k;  // [B, H, S, E]
  HeadsIn v;  // [B, H, S, F]
  HeadsIn p;  // [B, H, L, S], the probabilities
  double scale;
  Precision precision;
};

// dS = scale (dQ K^T + Q dK^T),   dP = P * (dS - rowsum(P * dS)),   dO = dP V + P dV
struct AttentionJvp {
  AttentionPrimal primal;
  HeadsIn dq;    // [K, B, H, L, E]; data is null where the tangent is zero, for these three; never for all of them
  HeadsIn dk;    // [K, B, H, S, E]
  HeadsIn dv;    // [K, B, H, S, F]
  HeadsOut out;  // [K, B, H, L, F], in memory [K, B, L, H, F]
};

// gV = P^T G,   gP = G V^T,   gS = scale P * (gP - rowsum(P * gP)),   gQ = gS K,   gK = gS^T Q
struct AttentionVjp {
  AttentionPrimal primal;
  HeadsIn g;    // [K, B, H, L, F]
  HeadsOut gq;  // [K, B, H, L, E], in memory [K, B, L, H, E], or [K, B, L, 3, H, E] together where L = S and E = F
  HeadsOut gk;  // [K, B, H, S, E]
  HeadsOut gv;  // [K, B, H, S, F]
};

}  // namespace eqv
