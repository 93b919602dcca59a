// What the CPU and the CUDA side of attention's derivative rules share: checks, allocation and strides.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <optional>
#include <string_view>

#include "checks.h"
#include "math/attention_heads.h"

namespace eqv {

inline Precision precision_of(std::string_view precision) {
  if (precision == "ieee") return Precision::ieee;
  if (precision == "tf32") return Precision::tf32;
  TORCH_CHECK_VALUE(precision == "tf32x3", "precision: expected ieee | tf32 | tf32x3, got '", precision, "'");
  return Precision::tf32x3;
}

// Owns the tensors of both rules' primal.
struct AttentionPrimalCall {
  AttentionPrimalCall(
      const at::Tensor& q_,  // [B, H, L, E]
      const at::Tensor& k_,  // [B, H, S, E]
      const at::Tensor& v_,  // [B, H, S, F]
      const at::Tensor& p_,  // [B, H, L, S]
      double scale_, std::string_view precision_)
      : dtype(kernel_dtype(q_, "q")), scale(scale_), precision(precision_of(precision_)) {
    check(q_, k_, v_, p_);
    q = with_dense_rows(q_);
    k = with_dense_rows(k_);
    v = with_dense_rows(v_);
    p = with_dense_rows(p_);
  }

  // Kernels walk along rows; rows themselves may lie anywhere (heads of a fused qkv stay where they are).
  static at::Tensor with_dense_rows(const at::Tensor& t) {
    return t.size(-1) <= 1 || t.stride(-1) == 1 ? t : t.contiguous();
  }

  template <typename Pointer>
  static Heads<Pointer> heads(const at::Tensor& t, Pointer data) {
    const int64_t at = t.dim() - 4;
    return {data, at == 0 ? 0 : t.stride(0), t.stride(at), t.stride(at + 1), t.stride(at + 2)};
  }
  static HeadsIn in(const at::Tensor& t) { return t.defined() ? heads(t, t.const_data_ptr()) : HeadsIn{}; }
  static HeadsOut to(const at::Tensor& t) { return heads(t, t.mutable_data_ptr()); }

  AttentionPrimal primal(int64_t K) const {
    return {
        .K = K,
        .B = q.size(0),
        .H = q.size(1),
        .L = q.size(2),
        .S = k.size(2),
        .E = q.size(3),
        .F = v.size(3),
        .q = in(q),
        .k = in(k),
        .v = in(v),
        .p = in(p),
        .scale = scale,
        .precision = precision,
    };
  }

  Dtype dtype;
  double scale;
  Precision precision;
  at::Tensor q, k, v, p;

 private:
  // Parameters carry the operator's argument names, which the messages print.
  static void check(
      const at::Tensor& q,    // [B, H, L, E]
      const at::Tensor& k,    // [B, H, S, E]
      const at::Tensor& v,    // [B, H, S, F]
      const at::Tensor& p) {  // [B, H, L, S]
    EQV_CHECK_DIM(q, 4);
    EQV_CHECK_DIM(k, 4);
    EQV_CHECK_DIM(v, 4);
    const int64_t B = q.size(0), H = q.size(1), L = q.size(2), S = k.size(2), E = q.size(3), F = v.size(3);
    EQV_CHECK_SHAPE(k, B, H, S, E);
    EQV_CHECK_SHAPE(v, B, H, S, F);
    EQV_CHECK_SHAPE(p, B, H, L, S);
    EQV_CHECK_DTYPE(k, q.scalar_type());
    EQV_CHECK_DTYPE(v, q.scalar_type());
    EQV_CHECK_DTYPE(p, q.scalar_type());
    EQV_CHECK_DEVICE(k, q.device());
    EQV_CHECK_DEVICE(v, q.device());
    EQV_CHECK_DEVICE(p, q.device());
  }
};

// Owns the tensors that an AttentionJvp points into.
struct AttentionJvpCall : AttentionPrimalCall {
  AttentionJvpCall(
      const std::optional<at::Tensor>& dq_,  // [K, B, H, L, E]
      const std::optional<at::Tensor>& dk_,  // [K, B, H, S, E]
      const std::optional<at::Tensor>& dv_,  // [K, B, H, S, F]
      const at::Tensor& q_, const at::Tensor& k_, const at::Tensor& v_, const at::Tensor& p_, double scale_,
      std::string_view precision_)
      : AttentionPrimalCall(q_, k_, v_, p_, scale_, precision_) {
    check(dq_.value_or(at::Tensor()), dk_.value_or(at::Tensor()), dv_.value_or(at::Tensor()), q_, k_, v_);
    if (dq_.has_value()) dq = with_dense_rows(*dq_);
    if (dk_.has_value()) dk = with_dense_rows(*dk_);
    if (dv_.has_value()) dv = with_dense_rows(*dv_);
    K = (dq.defined() ? dq : dk.defined() ? dk : dv).size(0);
    // In memory [K, B, L, H, F]: side by side, the heads are the rows of the next layer.
    out = at::empty({K, q.size(0), q.size(2), q.size(1), v.size(3)}, q.options()).transpose(2, 3);
  }

  AttentionJvp arguments() const {
    return {.primal = primal(K), .dq = in(dq), .dk = in(dk), .dv = in(dv), .out = to(out)};
  }

  int64_t K;
  at::Tensor dq, dk, dv, out;

 private:
  static void check(
      const at::Tensor& dq,  // [K, B, H, L, E] or undefined, as the next two
      const at::Tensor& dk,  // [K, B, H, S, E]
      const at::Tensor& dv,  // [K, B, H, S, F]
      const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    const at::Tensor& some = dq.defined() ? dq : dk.defined() ? dk : dv;
    TORCH_CHECK_VALUE(some.defined(), "dq, dk, dv: expected at least one tangent, got none");
    TORCH_CHECK_VALUE(some.dim() == 5, "dq, dk, dv: expected 5 dimensions, got shape ", some.sizes());
    const int64_t K = some.size(0), B = q.size(0), H = q.size(1), L = q.size(2), S = k.size(2), E = q.size(3),
                  F = v.size(3);
    if (dq.defined()) {
      EQV_CHECK_SHAPE(dq, K, B, H, L, E);
      EQV_CHECK_DTYPE(dq, q.scalar_type());
      EQV_CHECK_DEVICE(dq, q.device());
    }
    if (dk.defined()) {
      EQV_CHECK_SHAPE(dk, K, B, H, S, E);
      EQV_CHECK_DTYPE(dk, q.scalar_type());
      EQV_CHECK_DEVICE(dk, q.device());
    }
    if (dv.defined()) {
      EQV_CHECK_SHAPE(dv, K, B, H, S, F);
      EQV_CHECK_DTYPE(dv, q.scalar_type());
      EQV_CHECK_DEVICE(dv, q.device());
    }
  }
};

// Owns the tensors that an AttentionVjp points into.
struct AttentionVjpCall : AttentionPrimalCall {
  AttentionVjpCall(
      const at::Tensor& g_,  // [K, B, H, L, F]
      const at::Tensor& q_, const at::Tensor& k_, const at::Tensor& v_, const at::Tensor& p_, double scale_,
      std::string_view precision_)
      : AttentionPrimalCall(q_, k_, v_, p_, scale_, precision_) {
    check(g_, q_, v_);
    g = with_dense_rows(g_);
    const int64_t K = g.size(0), B = q.size(0), H = q.size(1), L = q.size(2), S = k.size(2), E = q.size(3),
                  F = v.size(3);
    // One tensor, because the results of an operator must not share memory.
    out = at::empty({K, B, H * (L * E + S * E + S * F)}, q.options());
    if (L == S && E == F) {
      // Side by side, as a layer that makes q, k and v together lays them out: its rule then reads one matrix.
      const at::Tensor qkv = out.view({K, B, L, 3, H, E});
      gq = qkv.select(3, 0).transpose(2, 3);
      gk = qkv.select(3, 1).transpose(2, 3);
      gv = qkv.select(3, 2).transpose(2, 3);
    } else {
      const auto part = [&](int64_t begin, int64_t rows, int64_t width) {
        return out.narrow(2, H * begin, H * rows * width).view({K, B, rows, H, width}).transpose(2, 3);
      };
      gq = part(0, L, E);
      gk = part(L * E, S, E);
      gv = part((L + S) * E, S, F);
    }
  }

  AttentionVjp arguments() const {
    return {.primal = primal(g.size(0)), .g = in(g), .gq = to(gq), .gk = to(gk), .gv = to(gv)};
  }

  at::Tensor g, out;      // [K, B, H (L E + S E + S F)]
  at::Tensor gq, gk, gv;  // where they lie in `out`

 private:
  static void check(
      const at::Tensor& g,    // [K, B, H, L, F]
      const at::Tensor& q,    // [B, H, L, E]
      const at::Tensor& v) {  // [B, H, S, F]
    EQV_CHECK_DIM(g, 5);
    const int64_t K = g.size(0), B = q.size(0), H = q.size(1), L = q.size(2), F = v.size(3);
    EQV_CHECK_SHAPE(g, K, B, H, L, F);
    EQV_CHECK_DTYPE(g, q.scalar_type());
    EQV_CHECK_DEVICE(g, q.device());
  }
};

}  // namespace eqv
