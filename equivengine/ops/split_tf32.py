"""float32 numbers as sums of two TF32 numbers, which tensor cores multiply exactly.

TF32 keeps 10 of float32's 23 bits of mantissa. With x = x_high + x_low and w = w_high + w_low,

    x w = x_low w_high + x_high w_low + x_high w_high + O(2^-22 |x w|),

so three TF32 products, small terms first, replace a float32 product on hardware whose TF32 is more than three times as
fast (Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores", arXiv 2203.03341; without their
scaling, as TF32 has float32's range).
"""

from __future__ import annotations

import torch
from torch import Tensor

from equivengine.ops.registration import define

__all__ = ["split_tf32"]

#: float32's mantissa bits that TF32 lacks.
_DROPPED = 13
_NAN = 0x7FFFFFFF


def round_to_tf32(x: Tensor) -> Tensor:
    """Round float32 to TF32, to nearest with ties away from zero: what `cvt.rna.tf32.f32` of PTX returns, bit by bit.

    Args:
        x: float32, of any shape.

    Returns:
        float32 of the same shape; NaN becomes the pattern 0x7fffffff.
    """
    bits = x.contiguous().view(torch.int32)
    # In int64: the sum may carry out of an int32 that is a NaN's, which `where` then replaces.
    rounded = (bits.long() + (1 << (_DROPPED - 1))) & -(1 << _DROPPED)
    return torch.where(x.isnan(), _NAN, rounded).int().view(torch.float32)


def _reference(x: Tensor) -> tuple[Tensor, Tensor]:
    if x.dtype != torch.float32:
        raise TypeError(f"x: expected dtype torch.float32, got {x.dtype}")
    high = round_to_tf32(x)
    rest = x - high
    return high, torch.where(rest.isfinite(), round_to_tf32(rest), 0.0)


def _fake(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


split_tf32 = define(
    "split_tf32",
    "(Tensor x) -> (Tensor, Tensor)",
    reference=_reference,
    fake=_fake,
    takes=lambda x: x.dtype == torch.float32,
    tangents=("x",),
    rows=(),
)
"""x, float32 -> (high, low) of the same shape: high is x rounded to TF32, low is x - high rounded to TF32.

high + low = x to 2^-22 |x| where |x| >= 2^-112. Where x is not finite, or rounds to infinity, low is 0. Raises
TypeError for other dtypes.
"""
