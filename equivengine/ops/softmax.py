"""Softmax with a derivative rule that shares one primal among K tangents.

With p = softmax(x), the Jacobian diag(p) - p p^T is symmetric, so that one rule serves jvp and vjp: p (t - sum(p t)).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equivengine.ops import record
from equivengine.ops.function import Operation, apply
from equivengine.ops.norm_function import accumulator, kernels_take_dtypes, left_to_pytorch
from equivengine.ops.registration import define

__all__ = ["softmax", "softmax_jvp"]


def softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along a dimension; a drop-in for `torch.softmax`.

    Its derivative applies to K tangents at once under `torch.func.vmap`. Under autocast PyTorch's own operation runs
    and is recorded as "torch".

    Args:
        x: The input.
        dim: The dimension whose entries sum to one.
        dtype: The result's dtype, to which x is converted beforehand; x's own when None.

    Returns:
        The probabilities, of x's shape.

    Raises:
        NotImplementedError: A second derivative is taken through it.
    """
    if x.dim() == 0 or left_to_pytorch(x):
        record.note("softmax", "torch")
        return torch.softmax(x, dim, dtype)
    if dtype is not None:
        x = x.to(dtype)
    if dim in (-1, x.dim() - 1):
        return apply(_Softmax, x)
    return apply(_Softmax, x.movedim(dim, -1)).movedim(-1, dim)


def _reference(tangents: Tensor, p: Tensor) -> Tensor:
    wide = p.to(accumulator(p.dtype))
    t = tangents.to(wide.dtype)
    return (wide * (t - (wide * t).sum(-1, keepdim=True))).to(tangents.dtype)


softmax_jvp = define(
    "softmax_jvp",
    "(Tensor tangents, Tensor p) -> Tensor",
    reference=_reference,
    fake=lambda tangents, p: tangents.new_empty(tangents.shape),
    takes=kernels_take_dtypes,
    tangents=("tangents",),
    rows=("p",),
)
"""tangents (or cotangents) [K, R, D], p [R, D] -> J t = J^T t, [K, R, D]."""


class _Softmax(Operation):
    """Over the last dimension."""

    name = "softmax"

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor]:
        return (torch.softmax(x, -1),)

    @staticmethod
    def saved(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        return outputs

    @staticmethod
    def push(saved: tuple[Any, ...], *tangents: Tensor | None) -> Tensor:
        (p,), (t,) = saved, tangents
        assert t is not None
        rows, width = p.shape[:-1].numel(), p.shape[-1]
        return softmax_jvp(t.reshape(1, rows, width), p.reshape(rows, width)).reshape(p.shape)

    @classmethod
    def pull(cls, saved: tuple[Any, ...], cotangent: Tensor) -> tuple[Tensor, ...]:
        return (cls.push(saved, cotangent),)
