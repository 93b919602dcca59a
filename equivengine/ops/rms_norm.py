"""RMSNorm and L2 normalization, which are one rule; the formulas stand in `norm_function`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from equivengine.ops import record
from equivengine.ops.function import Operation, apply
from equivengine.ops.norm_function import (
    NormFunction,
    accumulator,
    kernels_take_dtypes,
    left_to_pytorch,
    projection,
)
from equivengine.ops.registration import define

__all__ = ["normalize", "rms_norm", "rms_norm_jvp", "rms_norm_vjp"]


def rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide by the root mean square over the last dimensions; a drop-in for `torch.nn.functional.rms_norm`.

    Its derivative with respect to `x` applies to K tangents at once under `torch.func.vmap`. Where the weight is
    differentiated too or has another dtype than x, or autocast is on, PyTorch's own operation runs and is recorded as
    "torch".

    Args:
        x: The input, [..., *normalized_shape].
        normalized_shape: The trailing dimensions that are normalized together.
        weight: The scale, [*normalized_shape], or None for one.
        eps: What is added to the mean square; the machine epsilon of the accumulating dtype when None.

    Returns:
        The normalized tensor, of x's shape and dtype.

    Raises:
        NotImplementedError: A second derivative is taken through it.
        RuntimeError: Shapes do not fit (PyTorch's own message).
    """
    shape = list(normalized_shape)
    if left_to_pytorch(x, weight) or (weight is not None and weight.dtype != x.dtype):
        record.note("rms_norm", "torch")
        return torch.nn.functional.rms_norm(x, shape, weight, eps)
    return apply(_RMSNorm, x, shape, weight, None, eps)


def normalize(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Return x / max(|x|, eps) along a dimension; a drop-in for `torch.nn.functional.normalize`.

    Its derivative applies to K tangents at once under `torch.func.vmap`, for the 2-norm over the last dimension.
    Anything else, and autocast, is left to PyTorch's own operation and recorded as "torch".

    Args:
        x: The input.
        p: The norm's exponent.
        dim: The dimension that is normalized.
        eps: The smallest norm that is divided by.

    Returns:
        The normalized tensor, of x's shape and dtype.

    Raises:
        NotImplementedError: A second derivative is taken through it.
    """
    if p != 2.0 or dim not in (-1, x.dim() - 1) or left_to_pytorch(x):
        record.note("normalize", "torch")
        return torch.nn.functional.normalize(x, p, dim, eps)
    return apply(_Normalize, x, eps)


def _jvp_reference(tangents: Tensor, x: Tensor, rstd: Tensor, weight: Tensor | None) -> Tensor:
    out = projection(tangents.to(rstd.dtype), x, None, rstd)
    return (out if weight is None else out * weight.to(rstd.dtype)).to(tangents.dtype)


def _vjp_reference(
    cotangents: Tensor, x: Tensor, rstd: Tensor, weight: Tensor | None, residual: Tensor | None
) -> Tensor:
    g = cotangents.to(rstd.dtype)
    out = projection(g if weight is None else g * weight.to(rstd.dtype), x, None, rstd)
    return (out if residual is None else residual.to(rstd.dtype) + out).to(cotangents.dtype)


def _same_shape(
    tangents: Tensor, x: Tensor, rstd: Tensor, weight: Tensor | None, residual: Tensor | None = None
) -> Tensor:
    return tangents.new_empty(tangents.shape)


def _kernel_takes(
    tangents: Tensor, x: Tensor, rstd: Tensor, weight: Tensor | None, residual: Tensor | None = None
) -> bool:
    return (
        kernels_take_dtypes(tangents, x)
        and (weight is None or weight.dtype == x.dtype)
        and rstd.dtype == accumulator(x.dtype)
        and (residual is None or residual.dtype == tangents.dtype)
    )


rms_norm_jvp = define(
    "rms_norm_jvp",
    "(Tensor tangents, Tensor x, Tensor rstd, Tensor? weight) -> Tensor",
    reference=_jvp_reference,
    fake=_same_shape,
    takes=_kernel_takes,
    tangents=("tangents",),
    rows=("x", "rstd"),
)
"""tangents [K, R, D], x [R, D], rstd [R], weight [D] or None -> J t, [K, R, D]."""

rms_norm_vjp = define(
    "rms_norm_vjp",
    "(Tensor cotangents, Tensor x, Tensor rstd, Tensor? weight, Tensor? residual) -> Tensor",
    reference=_vjp_reference,
    fake=_same_shape,
    takes=_kernel_takes,
    tangents=("cotangents", "residual"),
    rows=("x", "rstd"),
)
"""cotangents [K, R, D], x [R, D], rstd [R], weight [D] or None, residual [K, R, D] or None -> residual + J^T ct,
[K, R, D]: the residual is the cotangent that a skip connection around the normalization brings."""


class _RMSNorm(NormFunction):
    name = "rms_norm"
    rules = (rms_norm_jvp, rms_norm_vjp)

    @staticmethod
    def forward(x: Tensor, shape: list[int], weight: Tensor | None, _bias: None, eps: float | None) -> tuple[Any, ...]:
        out, rstd = torch.ops.aten._fused_rms_norm(x, shape, weight, eps)  # what F.rms_norm runs
        return out, rstd.reshape(x.shape[: x.dim() - len(shape)])


class _Normalize(Operation):
    """L2 normalization as an RMS rule, with xhat = sqrt(D) x / |x| and rstd = 1 / |x|.

    rstd (t - xhat mean(t xhat)) = (t - y (y . t)) / |x|, y = x / |x|. Where |x| < eps the operation is x / eps, which
    is what the rule gives at x = 0 with rstd = 1 / eps.
    """

    name = "normalize"

    @staticmethod
    def forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        out = torch.nn.functional.normalize(x, dim=-1, eps=eps)
        wide = x.to(accumulator(x.dtype))
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        return out, (math.sqrt(x.shape[-1]) * wide).masked_fill(norm < eps, 0.0), 1.0 / norm.squeeze(-1).clamp_min(eps)

    @staticmethod
    def saved(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        return outputs[1:]

    @staticmethod
    def push(saved: tuple[Any, ...], *tangents: Tensor | None) -> Tensor:
        (t,) = tangents
        assert t is not None
        return rms_norm_jvp(*_rows(t, *saved), None).reshape(t.shape)

    @staticmethod
    def pull(saved: tuple[Any, ...], cotangent: Tensor) -> tuple[Tensor, ...]:
        return (rms_norm_vjp(*_rows(cotangent, *saved), None, None).reshape(cotangent.shape),)


def _rows(t: Tensor, x: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, width = rstd.numel(), x.shape[-1]
    return t.reshape(1, rows, width), x.reshape(rows, width), rstd.reshape(rows)
