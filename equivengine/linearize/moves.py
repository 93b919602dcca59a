"""Instructions that move elements to other places: strided slices, padding, rolling, gathering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from equivengine.linearize.nodes import Node, Owned, Shape


@dataclass(eq=False)
class Strided(Node):
    """slice with a step."""

    dim: int
    whole: Shape
    start: int
    step: int
    length: int
    rule: ClassVar[str] = "view"

    def _of(self, t: Tensor) -> Tensor:
        stepped = t[(slice(None),) * (self.dim + 1) + (slice(self.start, None, self.step),)]
        return stepped.narrow(self.dim + 1, 0, self.length)

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        return [self._of(tangents[0])]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        (g,) = cotangents
        whole = g.new_zeros(len(g), *self.whole)
        self._of(whole).copy_(g)
        return [whole]


@dataclass(eq=False)
class Spread(Strided):
    """The transpose of a strided slice: an assignment to one, into zeros."""

    rule: ClassVar[str] = "copy"

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        return super().pull(tangents, mine, None)

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        return super().push(cotangents, mine)


@dataclass(eq=False)
class Roll(Node):
    """roll along dimensions; and flip where there are no shifts."""

    dims: Shape
    shifts: tuple[int, ...] | None
    rule: ClassVar[str] = "copy"

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        at = [d + 1 for d in self.dims]
        return [tangents[0].flip(at) if self.shifts is None else tangents[0].roll(self.shifts, at)]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        at = [d + 1 for d in self.dims]
        back = None if self.shifts is None else [-s for s in self.shifts]
        return [cotangents[0].flip(at) if back is None else cotangents[0].roll(back, at)]


@dataclass(eq=False)
class Pad(Node):
    """Padding with a constant; negative amounts crop. ``amounts`` as in `torch.nn.functional.pad`."""

    amounts: tuple[int, ...]
    rule: ClassVar[str] = "copy"

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        return [F.pad(tangents[0], self.amounts)]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        return [F.pad(cotangents[0], [-n for n in self.amounts])]


@dataclass(eq=False)
class Index(Node):
    """x[:, indices, ...] with constant indices (None for a whole dimension) that stand side by side."""

    whole: Shape
    indices: tuple[Tensor | None, ...]
    rule: ClassVar[str] = "copy"

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        return [torch.ops.aten.index(tangents[0], [None, *self.indices])]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        (g,) = cotangents
        whole = g.new_zeros(len(g), *self.whole)
        return [torch.ops.aten.index_put_(whole, [None, *self.indices], g, True)]


@dataclass(eq=False)
class Gather(Node):
    """gather along a dimension with constant indices."""

    whole: Shape
    dim: int
    index: Tensor
    rule: ClassVar[str] = "copy"

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        (t,) = tangents
        return [t.gather(self.dim + 1, self.index.expand(len(t), *self.index.shape))]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        (g,) = cotangents
        whole = g.new_zeros(len(g), *self.whole)
        return [whole.scatter_add_(self.dim + 1, self.index.expand(len(g), *self.index.shape), g)]
