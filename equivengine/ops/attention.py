"""Scaled dot-product attention whose derivative rules share the primal's probabilities among K tangents.

PyTorch's fused attention has no forward-mode derivative at all (pytorch#98164), and its backward no batching rule
(pytorch#176265). Here the probabilities P are computed once and kept; with s the scale,

    dS = s (dQ K^T + Q dK^T),   dP = P * (dS - rowsum(P * dS)),   dO = dP V + P dV

and, for a cotangent G of O,

    gV = P^T G,   gP = G V^T,   gS = s P * (gP - rowsum(P * gP)),   gQ = gS K,   gK = gS^T Q.

Nothing is copied around the two operators: they read heads where a fused qkv layer has put them, and lay their results
out as the neighboring linear layers read them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from equivengine.ops import extension, record
from equivengine.ops.function import Operation, apply, outputs_of
from equivengine.ops.registration import define, is_differentiated

__all__ = ["attention", "attention_jvp", "attention_probabilities", "attention_vjp", "cotangents_of"]

#: How CUDA kernels multiply float32: exactly, rounded to TF32, or as three TF32 products of split operands.
PRECISIONS = ("ieee", "tf32", "tf32x3")

#: Scores of this many bytes the plain formula works on at a time: small enough for a CPU's last-level cache, large
#: enough to fill a GPU. Memory is bounded by it whatever K is.
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
    mask = additive_mask(mask, q, k, is_causal)
    if mask is not None and is_differentiated(mask):
        record.note("attention", "torch")
        return torch.softmax(q @ k.transpose(-2, -1) * factor + mask, dim=-1) @ v
    if not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        lead = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        q, k, v = (t.expand(*lead, *t.shape[-2:]) for t in (q, k, v))
    return apply(_Attention, q, k, v, mask, factor)


def additive_mask(mask: Tensor | None, q: Tensor, k: Tensor, is_causal: bool) -> Tensor | None:
    """The mask as a summand of the scores: -inf where attention is not allowed; None where there is none."""
    if is_causal:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -math.inf)
    return mask


class _Attention(Operation):
    """Inputs (q, k, v, mask, scale); outputs (out, probabilities)."""

    name = "attention"
    differentiable = 3

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
        p = attention_probabilities(q, k, mask, scale)
        out = p @ v
        if out.dim() > 3:
            # Laid out as attention_jvp's result: forward mode copies a tangent whose strides are not its primal's.
            out = out.transpose(-3, -2).contiguous().transpose(-3, -2)
        return out, p

    @staticmethod
    def saved(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        q, k, v, _, scale = inputs
        return q, k, v, outputs[1], scale

    @staticmethod
    def push(saved: tuple[Any, ...], *tangents: Tensor | None) -> Tensor:
        q, k, v, p, scale = saved
        dq, dk, dv = (None if t is None else _heads(t).unsqueeze(0) for t in tangents)
        out = attention_jvp(dq, dk, dv, *map(_heads, (q, k, v, p)), scale, "ieee")
        return out.reshape(*q.shape[:-1], v.shape[-1])

    @staticmethod
    def pull(saved: tuple[Any, ...], cotangent: Tensor) -> tuple[Tensor, ...]:
        *tensors, scale = saved
        heads = [_heads(t) for t in tensors]
        out = attention_vjp(_heads(cotangent).unsqueeze(0), *heads, scale, "ieee")
        return tuple(g.reshape(t.shape) for g, t in zip(cotangents_of(out, *heads[:3]), tensors, strict=False))

    @classmethod
    def vmap(
        cls,
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
        return outputs_of(cls, q, k, v, mask, scale), (0, 0)


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


def _heads(t: Tensor) -> Tensor:
    """[..., H, L, E] -> [B, H, L, E]; one head where there is no such dimension."""
    if t.dim() <= 3:
        return t.reshape(-1, 1, *t.shape[-2:])
    return t if t.dim() == 4 else t.flatten(0, -4)


def cotangents_of(out: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views of what `attention_vjp` returns: gq [K, B, H, L, E], gk [K, B, H, S, E] and gv [K, B, H, S, F].

    Where q, k and v have one shape, they lie in memory as [K, B, L, 3, H, E], so that the layer that made the three
    together reads its cotangent without a copy; else each [L, H, E], [S, H, E] and [S, H, F] one after the other.
    """
    if q.shape == k.shape == v.shape:
        gq, gk, gv = out.unflatten(2, (q.shape[2], 3, *q.shape[1::2])).unbind(3)
    else:
        parts = out.split([t.shape[1:].numel() for t in (q, k, v)], dim=2)
        gq, gk, gv = (part.unflatten(2, (t.shape[2], *t.shape[1::2])) for part, t in zip(parts, (q, k, v), strict=True))
    return gq.transpose(2, 3), gk.transpose(2, 3), gv.transpose(2, 3)


def _jvp_reference(
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    p: Tensor,
    scale: float,
    precision: str,
) -> Tensor:
    out = _fake_jvp(dq, dk, dv, q, k, v, p, scale, precision)
    for part in _parts(len(out), p):
        scores = [] if dq is None else [dq[part] @ k.transpose(2, 3)]
        if dk is not None:
            scores.append(q @ dk[part].transpose(3, 4))
        terms = [] if dv is None else [p @ dv[part]]
        if scores:
            ds = _sum(scores)
            ds *= p
            ds *= scale
            ds -= p * ds.sum(dim=-1, keepdim=True)
            terms.append(ds @ v)
        out[part] = _sum(terms)
    return out


def _sum(terms: list[Tensor]) -> Tensor:
    """One or two terms, added up in the first one's memory."""
    return terms[0] if len(terms) == 1 else terms[0].add_(terms[1])


def _vjp_reference(g: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, scale: float, precision: str) -> Tensor:
    out = _fake_vjp(g, q, k, v, p, scale, precision)
    gq, gk, gv = cotangents_of(out, q, k, v)
    for part in _parts(len(g), p):
        gs = g[part] @ v.transpose(2, 3)
        gs *= p
        gs *= scale
        gs -= p * gs.sum(dim=-1, keepdim=True)
        gq[part] = gs @ k
        gk[part] = gs.transpose(3, 4) @ q
        gv[part] = p.transpose(2, 3) @ g[part]
    return out


def _parts(directions: int, p: Tensor) -> list[slice]:
    budget = _SCORE_BYTES.get(p.device.type, 64 << 20)
    step = max(1, budget // max(1, p.numel() * p.element_size()))
    return [slice(start, min(start + step, directions)) for start in range(0, directions, step)]


def _fake_jvp(
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    p: Tensor,
    scale: float,
    precision: str,
) -> Tensor:
    _check_precision(precision)
    directions = {len(t) for t in (dq, dk, dv) if t is not None}
    if len(directions) != 1:
        raise ValueError(f"dq, dk, dv: expected one number of tangents, got {sorted(directions) or 'no tangents'}")
    batch, heads, length, _ = q.shape
    return q.new_empty((*directions, batch, length, heads, v.shape[3])).transpose(2, 3)


def _fake_vjp(g: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, scale: float, precision: str) -> Tensor:
    _check_precision(precision)
    return g.new_empty((g.shape[0], g.shape[1], sum(t.shape[1:].numel() for t in (q, k, v))))


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected {' | '.join(PRECISIONS)}, got {precision!r}")


def _kernel_takes(*args: Any) -> bool:
    dtypes = {arg.dtype for arg in args if isinstance(arg, Tensor)}
    return len(dtypes) == 1 and dtypes <= set(extension.kernel_dtypes())


attention_jvp = define(
    "attention_jvp",
    "(Tensor? dq, Tensor? dk, Tensor? dv, Tensor q, Tensor k, Tensor v, Tensor p, float scale, str precision)"
    " -> Tensor",
    reference=_jvp_reference,
    fake=_fake_jvp,
    takes=_kernel_takes,
    tangents=("dq", "dk", "dv"),
    rows=("q", "k", "v", "p"),
)
"""dq [K, B, H, L, E], dk [K, B, H, S, E], dv [K, B, H, S, F], q, k, v without K, p [B, H, L, S] -> dO, [K, B, H, L, F].

A tangent that is None is zero; at least one is given. dO lies in memory as [K, B, L, H, F], so that joining the heads,
`dO.transpose(-3, -2).flatten(-2)`, is a view. Only CUDA kernels look at the precision, one of `PRECISIONS`.
"""

attention_vjp = define(
    "attention_vjp",
    "(Tensor g, Tensor q, Tensor k, Tensor v, Tensor p, float scale, str precision) -> Tensor",
    reference=_vjp_reference,
    fake=_fake_vjp,
    takes=_kernel_takes,
    tangents=("g",),
    rows=("q", "k", "v", "p"),
)
"""g [K, B, H, L, F], q [B, H, L, E], k [B, H, S, E], v [B, H, S, F], p [B, H, L, S] -> the cotangents of q, k and v,
[K, B, H (L E + S E + S F)], which `cotangents_of` takes apart. Precision as in `attention_jvp`.
"""
