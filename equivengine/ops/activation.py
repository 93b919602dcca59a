"""Activations whose derivative factor is computed once from the primal and shared among K tangents.

An activation works element by element: its jvp and its vjp are t f'(x). The value and f' come from PyTorch's own
kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivengine.ops import record
from equivengine.ops.function import Operation, apply
from equivengine.ops.norm_function import accumulator, kernels_take_dtypes, left_to_pytorch
from equivengine.ops.registration import define, is_differentiated

__all__ = ["activation_factor", "gelu", "quick_gelu", "relu", "scale_tangents", "sigmoid", "silu", "tanh"]

_aten = torch.ops.aten


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Multiply x by the normal distribution function; a drop-in for `torch.nn.functional.gelu`.

    As all activations here, its derivative applies to K tangents at once under `torch.func.vmap`, and PyTorch's own
    operation runs, recorded as "torch", under autocast and for what is not a floating-point tensor.

    Args:
        x: The input, of any shape.
        approximate: "none", or "tanh" for the approximation by Hendrycks and Gimpel (arXiv 1606.08415).

    Returns:
        The activation, of x's shape and dtype.

    Raises:
        NotImplementedError: A second derivative is taken through it.
    """
    return _activate("gelu", x, approximate=approximate)


def silu(x: Tensor) -> Tensor:
    """Multiply x by sigmoid(x); a drop-in for `torch.nn.functional.silu`. See `gelu`."""
    return _activate("silu", x)


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0), with derivative 0 at 0; a drop-in for `torch.relu`. See `gelu`.

    Only a tangent that is not finite differs from PyTorch's: where x <= 0 it gives NaN (0 times infinity), not 0.
    """
    return _activate("relu", x)


def quick_gelu(x: Tensor) -> Tensor:
    """Multiply x by sigmoid(1.702 x), as OpenAI's CLIP has it. See `gelu`."""
    return _activate("quick_gelu", x)


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)); a drop-in for `torch.sigmoid`. See `gelu`."""
    return _activate("sigmoid", x)


def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent; a drop-in for `torch.tanh`. See `gelu`."""
    return _activate("tanh", x)


_QUICK = 1.702

_VALUES: dict[str, Callable[..., Tensor]] = {
    "gelu": F.gelu,
    "silu": F.silu,
    "relu": torch.relu,
    "quick_gelu": lambda x: x * torch.sigmoid(_QUICK * x),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}

#: From a cotangent and x, in the same dtype: the gradient by PyTorch's own kernels.
_GRADIENTS: dict[str, Callable[..., Tensor]] = {
    "gelu": _aten.gelu_backward,
    "silu": _aten.silu_backward,
    "relu": lambda one, x: _aten.threshold_backward(one, x, 0),
    "quick_gelu": lambda one, x: _aten.silu_backward(one, _QUICK * x),  # x s(ax) = y s(y) / a with y = ax
    "sigmoid": lambda one, x: _aten.sigmoid_backward(one, torch.sigmoid(x)),
    "tanh": lambda one, x: _aten.tanh_backward(one, torch.tanh(x)),
}


def activation_factor(name: str, x: Tensor, **options: Any) -> Tensor:
    """Return f'(x) of an activation, element by element.

    Args:
        name: "gelu", "silu", "relu", "quick_gelu", "sigmoid" or "tanh".
        x: Where, of any shape.
        **options: What the activation takes besides x: ``approximate`` for gelu.

    Returns:
        The factor, of x's shape; float32 where x is half-precision, so that its rounding does not add to that of the
        tangents.

    Raises:
        KeyError: There is no such activation.
    """
    wide = x.to(accumulator(x.dtype))
    return _GRADIENTS[name](torch.ones_like(wide), wide, **options)


def _activate(name: str, x: Tensor, **options: Any) -> Tensor:
    if left_to_pytorch(x):
        record.note(name, "torch")
        return _VALUES[name](x, **options)
    if not is_differentiated(x):  # no factor is needed
        return _VALUES[name](x, **options)
    return apply(_Activation, x, name, options)


scale_tangents = define(
    "scale_tangents",
    "(Tensor tangents, Tensor factor) -> Tensor",
    reference=lambda tangents, factor: (tangents.to(factor.dtype) * factor).to(tangents.dtype).contiguous(),
    fake=lambda tangents, factor: tangents.new_empty(tangents.shape),
    takes=kernels_take_dtypes,
    tangents=("tangents",),
    rows=("factor",),
)
"""tangents (or cotangents) [K, *R], factor [*R], of one dimension at least -> tangents * factor, [K, *R]."""


class _Activation(Operation):
    """Inputs (x, name, options); outputs (out, factor)."""

    name = "activation"

    @staticmethod
    def forward(x: Tensor, name: str, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return _VALUES[name](x, **options), activation_factor(name, x, **options)

    @staticmethod
    def saved(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        return (outputs[1],)

    @staticmethod
    def push(saved: tuple[Any, ...], *tangents: Tensor | None) -> Tensor:
        (factor,), (t,) = saved, tangents
        assert t is not None
        if t.dim() == 0:
            return scale_tangents(t.reshape(1, 1), factor.reshape(1)).reshape(())
        return scale_tangents(t.unsqueeze(0), factor).squeeze(0)

    @classmethod
    def pull(cls, saved: tuple[Any, ...], cotangent: Tensor) -> tuple[Tensor, ...]:
        return (cls.push(saved, cotangent),)
