"""Instructions that treat every element by itself, and sums over dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from equivengine.linearize.arithmetic import Arithmetic
from equivengine.linearize.nodes import Node, Owned, Shape, resized


@dataclass(eq=False)
class Add(Node):
    """a + alpha b, of equal shapes."""

    alpha: float = 1.0
    reuses: ClassVar[int | None] = 0

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        a, b = tangents
        if mine[0]:
            return [a.add_(b, alpha=self.alpha)]
        if mine[1] and self.alpha == 1:
            return [b.add_(a)]
        return [torch.add(a, b, alpha=self.alpha)]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        (g,) = cotangents
        return [g, g if self.alpha == 1 else g * self.alpha]

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        return Add(self.alpha, source=self.source), [dim, dim]


@dataclass(eq=False)
class Scale(Node):
    """Multiplication with a factor that depends on the primal only: activations, layer scale, constants."""

    factor: Tensor  # broadcastable to the primal's shape
    rank: int  # dimensions of the primal
    reuses: ClassVar[int | None] = 0

    def bind(self, arithmetic: Arithmetic) -> None:
        self.factor = arithmetic.constant(self.factor)

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        (t,) = tangents
        return [t.mul_(self.factor) if mine[0] else t * self.factor]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        return self.push(cotangents, mine)

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        return Scale(_slice_of(self.factor, self.rank, dim, start, length), self.rank, source=self.source), [dim]


@dataclass(eq=False)
class Product(Node):
    """of_a da + of_b db for a function of variables a and b of equal shape, element by element: gates, quotients."""

    of_a: Tensor  # derivative with respect to a, broadcastable to the primal's shape
    of_b: Tensor
    rank: int
    reuses: ClassVar[int | None] = 0

    def bind(self, arithmetic: Arithmetic) -> None:
        self.of_a, self.of_b = arithmetic.constant(self.of_a), arithmetic.constant(self.of_b)

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        da, db = tangents
        first = da.mul_(self.of_a) if mine[0] else da * self.of_a
        return [first.addcmul_(db, self.of_b)]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        (g,) = cotangents
        return [g * self.of_a, g * self.of_b]

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        of_a, of_b = (_slice_of(t, self.rank, dim, start, length) for t in (self.of_a, self.of_b))
        return Product(of_a, of_b, self.rank, source=self.source), [dim, dim]


@dataclass(eq=False)
class Sum(Node):
    """Sums over dimensions, times a number: sum and mean."""

    before: Shape
    dims: Shape
    keepdim: bool
    scale: float = 1.0

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        (t,) = tangents
        out = t.sum([d + 1 for d in self.dims], self.keepdim) if self.dims else t
        return [out if self.scale == 1 else out * self.scale]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        (g,) = cotangents
        kept = [1 if d in self.dims else n for d, n in enumerate(self.before)]
        g = g.reshape(len(g), *kept)
        return [(g if self.scale == 1 else g * self.scale).expand(len(g), *self.before)]

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        remaining = [d for d in range(len(self.before)) if self.keepdim or d not in self.dims]
        other = remaining[dim]
        if other in self.dims:
            return None
        smaller = Sum(resized(self.before, other, length), self.dims, self.keepdim, self.scale, source=self.source)
        return smaller, [other]


def mean(before: Shape, dims: Shape, keepdim: bool) -> Sum:
    """The mean over dimensions."""
    return Sum(before, dims, keepdim, 1 / max(1, math.prod(before[d] for d in dims)))


def _slice_of(factor: Tensor, rank: int, dim: int, start: int, length: int) -> Tensor:
    """The part of a broadcast factor that a slice of a tensor of this rank meets."""
    at = factor.dim() - rank + dim
    return factor if at < 0 or factor.shape[at] == 1 else factor.narrow(at, start, length)
