"""Instructions that leave the derivative of one operation to PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from equivengine.linearize.arithmetic import Arithmetic
from equivengine.linearize.nodes import Node, Owned, Shape


@dataclass(eq=False)
class ByTorch(Node):
    """Any operation: PyTorch's own derivative of this one operation, batched by torch.func.vmap.

    ``call`` maps the primals that depend on x to one tensor, or to a tuple of them.
    """

    call: Callable[..., Any]
    primals: tuple[Tensor, ...]
    rule: ClassVar[str] = "torch"

    def bind(self, arithmetic: Arithmetic) -> None:
        self.dtype = arithmetic.dtype
        # Forward mode lays a tangent out like its primal, which fails where strides are zero (`expand`).
        self.primals = tuple(p.contiguous() if 0 in p.stride() else p for p in self.primals)

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        wide = [t.to(p.dtype) for t, p in zip(tangents, self.primals, strict=True)]

        def along(*ts: Tensor) -> Any:
            return torch.func.jvp(self.call, self.primals, ts)[1]

        out = torch.func.vmap(along)(*wide)
        return [t.to(self.dtype) for t in (out if isinstance(out, tuple) else (out,))]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        value, pullback = torch.func.vjp(self.call, *self.primals)[:2]
        values = value if isinstance(value, tuple) else (value,)
        some = next(g for g in cotangents if g is not None)
        given = tuple(
            v.new_zeros(len(some), *v.shape) if g is None else g.to(v.dtype)
            for g, v in zip(cotangents, values, strict=True)
        )
        out = torch.func.vmap(pullback)(given if isinstance(value, tuple) else given[0])
        return [g.to(self.dtype) for g in out]


@dataclass(eq=False)
class LinearByTorch(Node):
    """An operation that is linear and works on a batch [B, ...]: directions join the batch. Average pooling, resizing.

    ``call`` maps [N, ...] to [N, ...] for any N, without constant terms.
    """

    call: Callable[[Tensor], Tensor]
    before: Shape  # [B, ...]
    rule: ClassVar[str] = "folded"

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        (t,) = tangents
        out = self.call(t.flatten(0, 1))
        return [out.reshape(len(t), self.before[0], *out.shape[1:])]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        (g,) = cotangents
        with torch.enable_grad():
            zero = g.new_zeros(len(g) * self.before[0], *self.before[1:]).requires_grad_(True)
            (out,) = torch.autograd.grad(self.call(zero), zero, g.flatten(0, 1))
        return [out.reshape(len(g), *self.before)]
