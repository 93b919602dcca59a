"""LayerNorm with derivative rules that share one primal among K tangents; the formulas stand in `norm_function`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equivengine.ops import record
from equivengine.ops.function import apply
from equivengine.ops.norm_function import (
    NormFunction,
    accumulator,
    kernels_take_dtypes,
    left_to_pytorch,
    projection,
)
from equivengine.ops.registration import define

__all__ = ["layer_norm", "layer_norm_jvp", "layer_norm_vjp"]


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize over the last dimensions; a drop-in for `torch.nn.functional.layer_norm`.

    Its derivative with respect to `x` applies to K tangents at once under `torch.func.vmap`. Where the weight or the
    bias is differentiated too, or autocast is on, PyTorch's own operation runs and is recorded as "torch".

    Args:
        x: The input, [..., *normalized_shape].
        normalized_shape: The trailing dimensions that are normalized together.
        weight: The scale, [*normalized_shape], or None for one.
        bias: The shift, [*normalized_shape], or None for zero.
        eps: What is added to the variance.

    Returns:
        The normalized tensor, of x's shape and dtype.

    Raises:
        NotImplementedError: A second derivative is taken through it.
        RuntimeError: Shapes do not fit (PyTorch's own message).
    """
    shape = list(normalized_shape)
    if left_to_pytorch(x, weight, bias):
        record.note("layer_norm", "torch")
        return torch.nn.functional.layer_norm(x, shape, weight, bias, eps)
    return apply(_LayerNorm, x, shape, weight, bias, eps)


def _jvp_reference(tangents: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None) -> Tensor:
    out = projection(tangents.to(rstd.dtype), x, mean, rstd)
    return (out if weight is None else out * weight.to(rstd.dtype)).to(tangents.dtype)


def _vjp_reference(
    cotangents: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, residual: Tensor | None
) -> Tensor:
    g = cotangents.to(rstd.dtype)
    out = projection(g if weight is None else g * weight.to(rstd.dtype), x, mean, rstd)
    return (out if residual is None else residual.to(rstd.dtype) + out).to(cotangents.dtype)


def _same_shape(
    tangents: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, residual: Tensor | None = None
) -> Tensor:
    return tangents.new_empty(tangents.shape)


def _kernel_takes(
    tangents: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, residual: Tensor | None = None
) -> bool:
    return (
        kernels_take_dtypes(tangents, x)
        and (weight is None or weight.dtype == x.dtype)
        and mean.dtype == rstd.dtype == accumulator(x.dtype)
        and (residual is None or residual.dtype == tangents.dtype)
    )


layer_norm_jvp = define(
    "layer_norm_jvp",
    "(Tensor tangents, Tensor x, Tensor mean, Tensor rstd, Tensor? weight) -> Tensor",
    reference=_jvp_reference,
    fake=_same_shape,
    takes=_kernel_takes,
    tangents=("tangents",),
    rows=("x", "mean", "rstd"),
)
"""tangents [K, R, D], x [R, D], mean [R], rstd [R], weight [D] or None -> J t, [K, R, D]."""

layer_norm_vjp = define(
    "layer_norm_vjp",
    "(Tensor cotangents, Tensor x, Tensor mean, Tensor rstd, Tensor? weight, Tensor? residual) -> Tensor",
    reference=_vjp_reference,
    fake=_same_shape,
    takes=_kernel_takes,
    tangents=("cotangents", "residual"),
    rows=("x", "mean", "rstd"),
)
"""cotangents [K, R, D], x [R, D], mean [R], rstd [R], weight [D] or None, residual [K, R, D] or None -> residual +
J^T ct, [K, R, D]: the residual is the cotangent that a skip connection around the normalization brings."""


class _LayerNorm(NormFunction):
    name = "layer_norm"
    rules = (layer_norm_jvp, layer_norm_vjp)

    @staticmethod
    def forward(
        x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        rows = x.shape[: x.dim() - len(shape)]
        wide_dtype = accumulator(x.dtype)
        if mean.dtype != wide_dtype:
            # PyTorch's CPU kernel rounds the statistics of half-precision input to half precision: too coarse for the
            # rules, which scale by rstd.
            wide = x.to(wide_dtype).flatten(len(rows))
            mean = wide.mean(-1)
            rstd = ((wide - mean.unsqueeze(-1)).square().mean(-1) + eps).rsqrt()
        return out, mean.reshape(rows), rstd.reshape(rows)
