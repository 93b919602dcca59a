r"""LayerNorm with derivative rules that share one primal among K tangents.

With :math:`\hat x = (x - \mathrm{mean}) \cdot \mathrm{rstd}` and means over the normalised dimensions,

.. math::
    \text{jvp: } & w \, \mathrm{rstd} \, (t - \mathrm{mean}(t) - \hat x \, \mathrm{mean}(t \hat x)) \\
    \text{vjp: } & \mathrm{rstd} \, (g - \mathrm{mean}(g) - \hat x \, \mathrm{mean}(g \hat x)), \quad g = w \cdot ct

which follows from Ba, Kiros and Hinton, "Layer Normalization" (arXiv 1607.06450), eq. 4, by the chain rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from equivengine.ops import extension, record
from equivengine.ops.registration import define, is_differentiated, outer_levels_visible, without_own_tangent

__all__ = ["layer_norm", "layer_norm_jvp", "layer_norm_vjp"]


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last dimensions; a drop-in for `torch.nn.functional.layer_norm`.

    Its derivative with respect to `x` applies to K tangents at once under `torch.func.vmap`. Where the weight or the
    bias is differentiated too, or autocast is on, PyTorch's own operation runs and is recorded as "torch".

    Args:
        x: The input, [..., *normalized_shape].
        normalized_shape: The trailing dimensions that are normalised together.
        weight: The scale, [*normalized_shape], or None for one.
        bias: The shift, [*normalized_shape], or None for zero.
        eps: What is added to the variance.

    Returns:
        The normalised tensor, of x's shape and dtype.

    Raises:
        NotImplementedError: A second derivative is taken through it.
        RuntimeError: Shapes do not fit (PyTorch's own message).
    """
    shape = list(normalized_shape)
    if (
        not x.is_floating_point()
        or (torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type))
        or is_differentiated(weight)
        or is_differentiated(bias)
    ):
        record.note("layer_norm", "torch")
        return torch.nn.functional.layer_norm(x, shape, weight, bias, eps)
    out, _, _ = _LayerNorm.apply(x, shape, weight, bias, eps)
    return out


class _LayerNorm(torch.autograd.Function):
    """Returns (out, mean [R], rstd [R]); only `out` is differentiable, and only with respect to x."""

    @staticmethod
    def forward(
        x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        accumulate = _accumulator(x.dtype)
        if mean.dtype != accumulate:
            # PyTorch's CPU kernel rounds the statistics of half-precision input to half precision: too coarse for the
            # rules, which scale by rstd.
            wide = x.to(accumulate).flatten(x.dim() - len(shape))
            mean = wide.mean(-1)
            rstd = ((wide - mean.unsqueeze(-1)).square().mean(-1) + eps).rsqrt()
        return out, mean.reshape(-1), rstd.reshape(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, shape, weight, _, _ = inputs
        _, mean, rstd = output
        ctx.mark_non_differentiable(mean, rstd)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, mean, rstd, weight)
        ctx.save_for_forward(x, mean, rstd, weight)
        ctx.normalized = shape
        ctx.recordings = record.active()

    @staticmethod
    def jvp(ctx: Any, t: Tensor | None, _shape: None, d_weight: Any, d_bias: Any, _eps: None) -> Any:
        if d_weight is not None or d_bias is not None:
            raise NotImplementedError(_PARAMETERS)
        if t is None:
            return None, None, None
        with outer_levels_visible(), record.also_into(ctx.recordings):
            tensors = without_own_tangent(t, *ctx.saved_tensors)
            return _apply_rule(layer_norm_jvp, ctx.normalized, *tensors), None, None

    @staticmethod
    def backward(ctx: Any, ct: Tensor | None, _mean: Any, _rstd: Any) -> Any:
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            raise NotImplementedError(_PARAMETERS)
        if ct is None or not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        with record.also_into(ctx.recordings):
            return _apply_rule(layer_norm_vjp, ctx.normalized, ct, *ctx.saved_tensors), None, None, None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        shape: list[int],
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> tuple[Any, Any]:
        x_dim, _, weight_dim, bias_dim, _ = in_dims
        # The statistics are flattened over the rows, so a batch of inputs is a batch of rows.
        x = x.unsqueeze(0) if x_dim is None else x.movedim(x_dim, 0)
        own = (
            None if weight_dim is not None else weight,
            None if bias_dim is not None or weight_dim is not None else bias,
        )
        out, mean, rstd = _LayerNorm.apply(x, shape, *own, eps)
        if weight is not None and weight_dim is not None:
            out = out * _per_member(weight, weight_dim, x.dim())
        if bias is not None and own[1] is None:
            out = out + _per_member(bias, bias_dim, x.dim())
        mean, rstd = mean.reshape(x.shape[0], -1), rstd.reshape(x.shape[0], -1)
        if x_dim is None:
            return (out, mean[0], rstd[0]), (0, None, None)
        return (out, mean, rstd), (0, 0, 0)


_PARAMETERS = (
    "equivengine.ops.layer_norm differentiates with respect to its input only; weight or bias was differentiated in a "
    "way that it did not notice beforehand: freeze the parameters, or use torch.nn.functional.layer_norm"
)


def _per_member(parameter: Tensor, dim: int | None, ndim: int) -> Tensor:
    """[B, *normalized_shape] (or unbatched) -> [B or 1, 1, ..., *normalized_shape], to broadcast over x's rows."""
    parameter = parameter.unsqueeze(0) if dim is None else parameter.movedim(dim, 0)
    return parameter.reshape(parameter.shape[0], *(1,) * (ndim - parameter.dim()), *parameter.shape[1:])


def _apply_rule(rule: Any, shape: list[int], t: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Any) -> Tensor:
    """Flatten to rows and hand one tangent (of this level) to a K-tangent rule."""
    width = math.prod(shape)
    flat_weight = None if weight is None else weight.reshape(width)
    rows = mean.shape[0]
    out = rule(t.reshape(1, rows, width), x.reshape(rows, width), mean, rstd, flat_weight)
    return out.reshape(x.shape)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _jvp_reference(tangents: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None) -> Tensor:
    accumulate = mean.dtype
    t = tangents.to(accumulate)
    scale = rstd.unsqueeze(-1)
    xhat = (x.to(accumulate) - mean.unsqueeze(-1)) * scale
    out = scale * (t - t.mean(-1, keepdim=True) - xhat * (t * xhat).mean(-1, keepdim=True))
    if weight is not None:
        out = out * weight.to(accumulate)
    return out.to(tangents.dtype)


def _vjp_reference(cotangents: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None) -> Tensor:
    accumulate = mean.dtype
    g = cotangents.to(accumulate)
    if weight is not None:
        g = g * weight.to(accumulate)
    scale = rstd.unsqueeze(-1)
    xhat = (x.to(accumulate) - mean.unsqueeze(-1)) * scale
    out = scale * (g - g.mean(-1, keepdim=True) - xhat * (g * xhat).mean(-1, keepdim=True))
    return out.to(cotangents.dtype)


def _same_shape(tangents: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None) -> Tensor:
    return tangents.new_empty(tangents.shape)


def _kernel_takes(tangents: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None) -> bool:
    return (
        x.dtype in extension.kernel_dtypes()
        and tangents.dtype == x.dtype
        and (weight is None or weight.dtype == x.dtype)
        and mean.dtype == rstd.dtype == _accumulator(x.dtype)
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
    "(Tensor cotangents, Tensor x, Tensor mean, Tensor rstd, Tensor? weight) -> Tensor",
    reference=_vjp_reference,
    fake=_same_shape,
    takes=_kernel_takes,
    tangents=("cotangents",),
    rows=("x", "mean", "rstd"),
)
"""cotangents [K, R, D], x [R, D], mean [R], rstd [R], weight [D] or None -> J^T ct, [K, R, D]."""
