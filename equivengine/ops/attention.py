"""Scaled dot-product attention whose derivative rules share the primal's probabilities among K tangents.

PyTorch's fused attention has no forward-mode derivative at all (pytorch#98164), and its backward no batching rule
(pytorch#176265). Here the probabilities P are computed once and kept; with s the scale,

    dS = s (dQ K^T + Q dK^T),   dP = P * (dS - rowsum(P * dS)),   dO = dP V + P dV

and, for a cotangent G of O,

    gV = P^T G,   gP = G V^T,   gS = P * (gP - rowsum(P * gP)),   gQ = s gS K,   gK = s gS^T Q.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from equivengine.ops import record
from equivengine.ops.registration import define, is_differentiated, outer_levels_visible, without_own_tangent

__all__ = ["attention", "attention_jvp", "attention_vjp"]

#: Scores of this many bytes are worked on at a time: small enough for a CPU's last-level cache, large enough to fill a
#: GPU. Memory is bounded by it whatever K is.
_SCORE_BYTES = {"cpu": 16 << 20, "cuda": 1 << 30}


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(scale Q K^T + mask) V; a drop-in for `torch.nn.functional.scaled_dot_product_attention` in eval mode.

    It has forward and reverse derivatives with respect to q, k and v that apply to K tangents at once. A mask that is
    itself differentiated goes through plain PyTorch operations, recorded as "torch".

    Args:
        q: Queries [..., L, E].
        k: Keys [..., S, E].
        v: Values [..., S, F].
        mask: True where attention is allowed, or an additive float mask; broadcastable to [..., L, S].
        is_causal: Query i sees keys 0..i; excludes ``mask``.
        scale: Factor of the scores; 1/sqrt(E) when None.
        enable_gqa: Keys and values have fewer heads (dimension -3), each serving a group of query heads.

    Returns:
        [..., L, F].

    Raises:
        NotImplementedError: A second derivative is taken through it.
        RuntimeError: Shapes do not fit.
    """
    if is_causal and mask is not None:
        raise RuntimeError("attention takes either a mask or is_causal, not both")
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    if enable_gqa:
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], dim=-3)
        v = v.repeat_interleave(q.shape[-3] // v.shape[-3], dim=-3)
    if is_causal:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -math.inf)
    if mask is not None and is_differentiated(mask):
        record.note("attention", "torch")
        return torch.softmax(q @ k.transpose(-2, -1) * factor + mask, dim=-1) @ v
    if not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        lead = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        q, k, v = (t.expand(*lead, *t.shape[-2:]) for t in (q, k, v))
    out, _ = _Attention.apply(q, k, v, mask, factor)
    return out


class _Attention(torch.autograd.Function):
    """Returns (out, probabilities); only `out` is differentiable, and only with respect to q, k and v."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
        p = attention_probabilities(q, k, mask, scale)
        return p @ v, p

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        q, k, v, _, scale = inputs
        p = output[1]
        ctx.mark_non_differentiable(p)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q, k, v, p)
        ctx.save_for_forward(q, k, v, p)
        ctx.scale = scale
        ctx.recordings = record.active()

    @staticmethod
    def jvp(ctx: Any, dq: Tensor | None, dk: Tensor | None, dv: Tensor | None, d_mask: Any, _scale: None) -> Any:
        if d_mask is not None:
            raise NotImplementedError(_MASK)
        with outer_levels_visible(), record.also_into(ctx.recordings):
            q, k, v, p, *tangents = without_own_tangent(*ctx.saved_tensors, dq, dk, dv)
            if all(t is None for t in tangents):
                return None, None
            dq, dk, dv = (
                _rows(torch.zeros_like(t) if d is None else d).unsqueeze(0)
                for t, d in zip((q, k, v), tangents, strict=True)
            )
            out = attention_jvp(dq, dk, dv, _rows(q), _rows(k), _rows(v), _rows(p), ctx.scale)
            return out.reshape(*q.shape[:-1], v.shape[-1]), None

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _p: Any) -> Any:
        if ctx.needs_input_grad[3]:
            raise NotImplementedError(_MASK)
        if g is None:
            return None, None, None, None, None
        q, k, v, p = ctx.saved_tensors
        with record.also_into(ctx.recordings):
            gq, gk, gv = attention_vjp(_rows(g).unsqueeze(0), _rows(q), _rows(k), _rows(v), _rows(p), ctx.scale)
        return gq.reshape(q.shape), gk.reshape(k.shape), gv.reshape(v.shape), None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        scale: float,
    ) -> tuple[Any, Any]:
        *qkv_dims, mask_dim, _ = in_dims
        q, k, v = (
            t.unsqueeze(0).expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip((q, k, v), qkv_dims, strict=True)
        )
        if mask is not None and mask_dim is not None:
            mask = mask.movedim(mask_dim, 0)
            mask = mask.reshape(mask.shape[0], *(1,) * (q.dim() - mask.dim()), *mask.shape[1:])
        return _Attention.apply(q, k, v, mask, scale), (0, 0)


_MASK = (
    "equivengine.ops.attention does not differentiate with respect to its mask, and the mask was differentiated in a "
    "way that it did not notice beforehand: detach it"
)


def attention_probabilities(q: Tensor, k: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(scale Q K^T + mask): q [..., L, E], k [..., S, E], mask broadcastable to [..., L, S] -> [..., L, S].

    A row that is masked throughout attends to nothing: zeros, as PyTorch's attention returns, where softmax has NaN.
    """
    scores = (q * scale) @ k.transpose(-2, -1)
    if mask is None:
        return torch.softmax(scores, dim=-1)
    scores = scores + mask
    empty = (scores == -math.inf).all(dim=-1, keepdim=True)
    return torch.softmax(scores, dim=-1).masked_fill(empty, 0.0)


def _rows(t: Tensor) -> Tensor:
    """[..., L, E] -> [N, L, E]."""
    return t.reshape(-1, *t.shape[-2:])


def _jvp_reference(
    dq: Tensor, dk: Tensor, dv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, scale: float
) -> Tensor:
    out = dq.new_empty((*dq.shape[:3], v.shape[-1]))
    for part in _parts(len(dq), p):
        ds = dq[part] @ k.transpose(1, 2)
        ds += q @ dk[part].transpose(2, 3)
        ds *= p
        ds *= scale
        ds -= p * ds.sum(dim=-1, keepdim=True)
        torch.add(p @ dv[part], ds @ v, out=out[part])
    return out


def _vjp_reference(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    gq = g.new_empty((len(g), *q.shape))
    gk = g.new_empty((len(g), *k.shape))
    gv = g.new_empty((len(g), *v.shape))
    for part in _parts(len(g), p):
        gs = g[part] @ v.transpose(1, 2)
        gs *= p
        gs *= scale
        gs -= p * gs.sum(dim=-1, keepdim=True)
        gq[part] = gs @ k
        gk[part] = gs.transpose(2, 3) @ q
        gv[part] = p.transpose(1, 2) @ g[part]
    return gq, gk, gv


def _parts(directions: int, p: Tensor) -> list[slice]:
    budget = _SCORE_BYTES.get(p.device.type, 64 << 20)
    step = max(1, budget // max(1, p.numel() * p.element_size()))
    return [slice(start, min(start + step, directions)) for start in range(0, directions, step)]


def _fake_jvp(dq: Tensor, dk: Tensor, dv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, scale: float) -> Tensor:
    return dq.new_empty((*dq.shape[:3], v.shape[-1]))


def _fake_vjp(g: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(g.new_empty((g.shape[0], *t.shape)) for t in (q, k, v))  # type: ignore[return-value]


attention_jvp = define(
    "attention_jvp",
    "(Tensor dq, Tensor dk, Tensor dv, Tensor q, Tensor k, Tensor v, Tensor p, float scale) -> Tensor",
    reference=_jvp_reference,
    fake=_fake_jvp,
    takes=lambda *args: False,  # no compiled kernel yet: the reference runs, and is recorded as such
    tangents=("dq", "dk", "dv"),
    rows=("q", "k", "v", "p"),
)
"""dq [K, N, L, E], dk [K, N, S, E], dv [K, N, S, F], q, k, v without K, p [N, L, S] -> dO, [K, N, L, F]."""

attention_vjp = define(
    "attention_vjp",
    "(Tensor g, Tensor q, Tensor k, Tensor v, Tensor p, float scale) -> (Tensor, Tensor, Tensor)",
    reference=_vjp_reference,
    fake=_fake_vjp,
    takes=lambda *args: False,
    tangents=("g",),
    rows=("q", "k", "v", "p"),
)
"""g [K, N, L, F], q [N, L, E], k [N, S, E], v [N, S, F], p [N, L, S] -> cotangents of q, k, v with leading K."""
