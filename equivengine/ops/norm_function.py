r"""What LayerNorm and RMSNorm share: one differentiable function around two pairs of derivative rules.

With means over the normalized dimensions, the rules are projections of a direction v (t for jvp, w ct for vjp):

.. math::
    \text{LayerNorm: } & \mathrm{rstd} \, (v - \mathrm{mean}(v) - \hat x \, \mathrm{mean}(v \hat x)),
        \quad \hat x = (x - \mathrm{mean}) \, \mathrm{rstd} \\
    \text{RMSNorm: } & \mathrm{rstd} \, (v - \hat x \, \mathrm{mean}(v \hat x)), \quad \hat x = x \, \mathrm{rstd}

with the weight multiplied after it for jvp. They follow from Ba, Kiros and Hinton (arXiv 1607.06450), eq. 4, and Zhang
and Sennrich (arXiv 1910.07467), eq. 4, by the chain rule.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from equivengine.ops import extension
from equivengine.ops.function import Operation, outputs_of
from equivengine.ops.registration import TangentOp, is_differentiated

__all__ = ["NormFunction", "accumulator", "kernels_take_dtypes", "left_to_pytorch", "projection"]


class NormFunction(Operation):
    """Inputs (x, normalized_shape, weight, bias, eps); outputs (out, *statistics [*rows]).

    Attributes:
        rules: The jvp and the vjp: (tangents, x, *statistics, weight), for vjp with a residual after it.
    """

    rules: ClassVar[tuple[TangentOp, TangentOp]]

    @staticmethod
    def saved(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """See `Operation`."""
        x, shape, weight, _, _ = inputs
        return x, math.prod(shape), weight, *outputs[1:]

    @classmethod
    def push(cls, saved: tuple[Any, ...], *tangents: Tensor | None) -> Tensor:
        """See `Operation`."""
        x, width, weight, *statistics = saved
        (t,) = tangents
        assert t is not None
        return cls.rules[0](*_rows(t, x, statistics, weight, width)).reshape(x.shape)

    @classmethod
    def pull(cls, saved: tuple[Any, ...], cotangent: Tensor) -> tuple[Tensor, ...]:
        """See `Operation`."""
        x, width, weight, *statistics = saved
        return (cls.rules[1](*_rows(cotangent, x, statistics, weight, width), None).reshape(x.shape),)

    @classmethod
    def vmap(
        cls,
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        shape: list[int],
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> tuple[Any, Any]:
        """Inputs are batched as rows; a batched weight or bias is applied afterwards."""
        x_dim, _, weight_dim, bias_dim, _ = in_dims
        x = x.unsqueeze(0) if x_dim is None else x.movedim(x_dim, 0)
        own = (
            None if weight_dim is not None else weight,
            None if bias_dim is not None or weight_dim is not None else bias,
        )
        out, *statistics = outputs_of(cls, x, shape, *own, eps)
        if weight is not None and weight_dim is not None:
            out = out * _per_member(weight, weight_dim, x.dim())
        if bias is not None and own[1] is None:
            out = out + _per_member(bias, bias_dim, x.dim())
        if x_dim is None:
            return (out, *(s[0] for s in statistics)), (0, *(None for _ in statistics))
        return (out, *statistics), (0,) * (1 + len(statistics))


def left_to_pytorch(x: Tensor, *parameters: Tensor | None) -> bool:
    """Whether PyTorch's own operation must run: a parameter is differentiated, or autocast picks the dtypes."""
    return (
        not x.is_floating_point()
        or (torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type))
        or any(is_differentiated(parameter) for parameter in parameters)
    )


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums and statistics of this dtype are kept in."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def kernels_take_dtypes(tangents: Tensor, primal: Tensor) -> bool:
    """Whether compiled kernels take this pair: alike, or bfloat16 tangents around a float32 primal."""
    return primal.dtype in extension.kernel_dtypes() and (
        tangents.dtype == primal.dtype or (tangents.dtype, primal.dtype) == (torch.bfloat16, torch.float32)
    )


def projection(v: Tensor, x: Tensor, mean: Tensor | None, rstd: Tensor) -> Tensor:
    """The rules' common part in plain PyTorch: v [K, R, D], in the statistics' dtype, without weights."""
    scale = rstd.unsqueeze(-1)
    xhat = x.to(rstd.dtype) * scale if mean is None else (x.to(rstd.dtype) - mean.unsqueeze(-1)) * scale
    along = xhat * (v * xhat).mean(-1, keepdim=True)
    return scale * (v - along if mean is None else v - v.mean(-1, keepdim=True) - along)


def _rows(t: Tensor, x: Tensor, statistics: list[Tensor], weight: Tensor | None, width: int) -> tuple[Any, ...]:
    """Flatten to rows, with one tangent (of this level)."""
    statistics = [s.reshape(-1) for s in statistics]
    rows = statistics[0].shape[0]
    flat_weight = None if weight is None else weight.reshape(width)
    return t.reshape(1, rows, width), x.reshape(rows, width), *statistics, flat_weight


def _per_member(parameter: Tensor, dim: int | None, ndim: int) -> Tensor:
    """[B, *normalized_shape] (or unbatched) -> [B or 1, 1, ..., *normalized_shape], to broadcast over x's rows."""
    parameter = parameter.unsqueeze(0) if dim is None else parameter.movedim(dim, 0)
    return parameter.reshape(parameter.shape[0], *(1,) * (ndim - parameter.dim()), *parameter.shape[1:])
