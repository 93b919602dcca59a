"""What tangents are stored and multiplied in, while the primal stays in its own precision.

Weights that an arithmetic needs in another form are converted once and kept, for as long as the weight lives and is not
changed in place.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from equivengine.ops.precision import ieee_float32, tensor_float32
from equivengine.ops.split_tf32 import split_tf32

_converted: weakref.WeakKeyDictionary[torch.UntypedStorage, dict[tuple, tuple[int, tuple[Tensor, ...]]]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True)
class Arithmetic:
    """Storage type of tangents and the rule by which they are multiplied with weights.

    Attributes:
        name: ``fp64``, ``fp32``, ``tf32``, ``tf32x3`` or ``bf16``.
        dtype: What tangents and cotangents are stored in.
        attention: The precision argument of the attention operators.
    """

    name: str
    dtype: torch.dtype
    attention: str = "ieee"

    def matrix(self, weight: Tensor) -> Matrix:
        """A weight [out, in] in the form that its products need."""
        if self.name == "tf32x3":
            return Matrix(kept(weight, "tf32x3", split_tf32))
        if weight.dtype != self.dtype:
            return Matrix(kept(weight, self.name, lambda w: (w.to(self.dtype),)))
        return Matrix((weight,))

    def constant(self, tensor: Tensor) -> Tensor:
        """A factor or primal in the dtype of the tangents."""
        return tensor.to(self.dtype)

    def primal(self) -> contextlib.AbstractContextManager[None]:
        """Float32 mode of the backends for the primal: IEEE, whatever the tangents are in."""
        return ieee_float32()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Set the backends' float32 mode for a pass, and restore it."""
        with tensor_float32() if self.name == "tf32" else ieee_float32():
            yield


#: By the names that users type. The primal is float64 for fp64 and float32 for all others.
ARITHMETICS = {
    each.name: each
    for each in (
        Arithmetic("fp64", torch.float64),
        Arithmetic("fp32", torch.float32),
        Arithmetic("tf32", torch.float32, "tf32"),
        Arithmetic("tf32x3", torch.float32, "tf32x3"),
        Arithmetic("bf16", torch.bfloat16),
    )
}


class Matrix:
    """A weight whose products are made by one matrix product, or by three of split operands.

    With x = hi + lo, both representable in TF32, x w is lo w_hi + hi w_lo + hi w_hi up to 2^-22: float32 accuracy from
    tensor cores (Ootomo and Yokota, arXiv 2203.03341). Small terms are added first.
    """

    def __init__(self, parts: tuple[Tensor, ...]) -> None:
        self.parts = parts

    def rows(self, t: Tensor, onto: Tensor | None = None) -> Tensor:
        """[..., in] times the transposed weight: [..., out]. ``onto`` is added to and overwritten."""
        return self._times(t, tuple(part.t() for part in self.parts), onto)

    def columns(self, g: Tensor, onto: Tensor | None = None) -> Tensor:
        """[..., out] times the weight: [..., in]. ``onto`` is added to and overwritten."""
        return self._times(g, self.parts, onto)

    @staticmethod
    def _times(t: Tensor, parts: tuple[Tensor, ...], onto: Tensor | None) -> Tensor:
        flat = t.reshape(-1, t.shape[-1])
        shape = (*t.shape[:-1], parts[0].shape[1])
        out = None if onto is None else onto.view(-1, shape[-1])
        if len(parts) == 1:
            terms = [(flat, parts[0])]
        else:
            hi, lo = split_tf32(flat)
            terms = [(lo, parts[0]), (hi, parts[1]), (hi, parts[0])]
        with contextlib.nullcontext() if len(parts) == 1 else tensor_float32():
            for left, right in terms:
                out = torch.mm(left, right) if out is None else torch.addmm(out, left, right, out=out)
        assert out is not None
        return out.view(shape)


def kept(weight: Tensor, form: str, convert: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """``convert(weight)``, remembered until the weight is freed or changed in place."""
    forms = _converted.setdefault(weight.untyped_storage(), {})
    key = (form, weight.dtype, weight.storage_offset(), tuple(weight.shape), weight.stride())
    found = forms.get(key)
    if found is None or found[0] != weight._version:
        # Detached: a graph would hold the weight, and so itself.
        found = forms[key] = (weight._version, convert(weight.detach()))
    return found[1]
