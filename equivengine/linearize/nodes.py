"""Instructions of a linear program: how one operation maps K tangents forward, and K cotangents back.

Every tensor has the K directions as its first dimension; the shapes and dimensions that nodes store are those of the
primal, without it. A node may overwrite an argument only where the program says that nobody else will read it.
This file has the base class and the operations that only view memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from equivengine.linearize.arithmetic import Arithmetic

Shape = tuple[int, ...]
Owned = Sequence[bool]


@dataclass(eq=False)
class Node:
    """One instruction.

    Attributes:
        inputs: Variables that it reads, each depending on x. Constants are fields of the node.
        outputs: Variables that it defines.
        source: Name of the operation that it came from, for `Program.coverage`.
    """

    inputs: list[int] = field(default_factory=list, kw_only=True)
    outputs: list[int] = field(default_factory=list, kw_only=True)
    source: str = field(default="", kw_only=True)

    #: How the derivative is taken, for `Program.coverage`.
    rule: ClassVar[str] = "shared"
    #: The input whose memory `push` turns into the output's where nobody else reads it.
    reuses: ClassVar[int | None] = None
    #: Whether `pull` can add to an existing cotangent of its first input: "any", "owned" (it is overwritten) or "".
    adds_onto: ClassVar[str] = ""

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        """Tangents [K, ...] of the outputs. ``mine``: whose memory may be reused."""
        raise NotImplementedError

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        """Contributions [K, ...] to the cotangents of the inputs, as tensors or `Patch`es; None for zero.

        At least one cotangent is a tensor; others may be None, for zero.
        """
        raise NotImplementedError

    def bind(self, arithmetic: Arithmetic) -> None:
        """Bring constants into the form that this arithmetic needs; called once, on a copy."""

    def coverage(self) -> str:
        """How the derivative of this operation is evaluated: "cpu-avx512", "shared", "torch", ..."""
        return self.rule

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        """This node computing only a slice of its one output, if a slice of its inputs suffices.

        Returns:
            The smaller node (its variables are filled in by the caller), and for each input the dimension along which
            the same slice of it is taken, or None where all of it is needed. None where there is no such node.
        """
        return None


@dataclass
class Patch:
    """A cotangent that is zero outside a slice of one dimension (K not counted)."""

    values: Tensor
    dim: int
    start: int

    def view_of(self, whole: Tensor) -> Tensor:
        """The slice of a full cotangent that it belongs to."""
        return whole.narrow(self.dim + 1, self.start, self.values.shape[self.dim + 1])


@dataclass(eq=False)
class Reshape(Node):
    """view, flatten, squeeze, unsqueeze."""

    before: Shape
    after: Shape
    rule: ClassVar[str] = "view"

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        return [tangents[0].reshape(len(tangents[0]), *self.after)]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        return [cotangents[0].reshape(len(cotangents[0]), *self.before)]

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        # The dimension survives where as many elements lie before it and it is as long.
        before = math.prod(self.after[:dim])
        for other in range(len(self.before)):
            if math.prod(self.before[:other]) == before and self.before[other] == self.after[dim]:
                shapes = (resized(self.before, other, length), resized(self.after, dim, length))
                return Reshape(*shapes, source=self.source), [other]
        return None


@dataclass(eq=False)
class Permute(Node):
    """transpose, permute."""

    dims: Shape
    rule: ClassVar[str] = "view"

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        return [tangents[0].permute(0, *(d + 1 for d in self.dims))]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        return [cotangents[0].permute(0, *(self.dims.index(d) + 1 for d in range(len(self.dims))))]

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        return Permute(self.dims, source=self.source), [self.dims[dim]]


@dataclass(eq=False)
class Expand(Node):
    """Broadcasting to a larger shape."""

    before: Shape
    after: Shape
    rule: ClassVar[str] = "view"

    def _padded(self) -> Shape:
        return (*(1,) * (len(self.after) - len(self.before)), *self.before)

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        (t,) = tangents
        return [t.reshape(len(t), *self._padded()).expand(len(t), *self.after)]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        (g,) = cotangents
        repeated = [d + 1 for d, n in enumerate(self._padded()) if n != self.after[d]]
        if repeated:
            g = g.sum(dim=repeated, keepdim=True)
        return [g.reshape(len(g), *self.before)]


@dataclass(eq=False)
class Pieces(Node):
    """select, slice, split, chunk, unbind: consecutive pieces of one dimension, one for each output."""

    dim: int
    whole: Shape
    pieces: list[tuple[int, int]]  # (start, length)
    squeeze: bool = False
    rule: ClassVar[str] = "view"

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        at = self.dim + 1
        if self.squeeze:
            return [tangents[0].select(at, start) for start, _ in self.pieces]
        return [tangents[0].narrow(at, start, length) for start, length in self.pieces]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        at = self.dim + 1
        given: list[Any] = [g if g is None or not self.squeeze else g.unsqueeze(at) for g in cotangents]
        if len(given) == 1:
            (start, length) = self.pieces[0]
            return [given[0] if length == self.whole[self.dim] else Patch(given[0], self.dim, start)]
        complete = sum(length for _, length in self.pieces) == self.whole[self.dim]
        if complete and all(g is not None for g in given):
            return [joined(given, at)]
        some = next(g for g in given if g is not None)
        whole = some.new_zeros(len(some), *self.whole)
        for g, (start, length) in zip(given, self.pieces, strict=True):
            if g is not None:
                whole.narrow(at, start, length).copy_(g)
        return [whole]

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        # Slices along two dimensions could change places for ever.
        if len(self.pieces) != 1 or self.squeeze or dim != self.dim:
            return None
        pieces = [(self.pieces[0][0] + start, length)]
        return Pieces(self.dim, self.whole, pieces, source=self.source), [None]


@dataclass(eq=False)
class Cat(Node):
    """cat and stack (of unsqueezed inputs); constants among the pieces have no tangent."""

    dim: int
    whole: Shape
    pieces: list[tuple[int, int]]  # of the inputs that depend on x
    rule: ClassVar[str] = "view"

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        t = tangents[0]
        make: Any = t.new_empty if sum(length for _, length in self.pieces) == self.whole[self.dim] else t.new_zeros
        out = make((len(t), *self.whole))
        for piece, (start, length) in zip(tangents, self.pieces, strict=True):
            out.narrow(self.dim + 1, start, length).copy_(piece)
        return [out]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        return [cotangents[0].narrow(self.dim + 1, start, length) for start, length in self.pieces]

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        if dim == self.dim:
            return None
        smaller = Cat(self.dim, resized(self.whole, dim, length), self.pieces, source=self.source)
        return smaller, [dim for _ in self.pieces]


def resized(shape: Shape, dim: int, length: int) -> Shape:
    """A shape with another length of one dimension."""
    return (*shape[:dim], length, *shape[dim + 1 :])


def joined(slices: Sequence[Tensor], dim: int) -> Tensor:
    """torch.cat, without a copy where the slices already lie side by side in one buffer."""
    first = slices[0]
    position = first.storage_offset()
    size = sum(s.shape[dim] for s in slices)
    step = int(first.stride(dim))
    if first.shape[dim] == 1 and len(slices) > 1:  # the stride of a dimension of size 1 says nothing
        step = int(slices[1].storage_offset() - position)
    for s in slices:
        others = [d for d in range(s.dim()) if d != dim and s.shape[d] != 1]
        fits = (
            s.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
            and s.storage_offset() == position
            and (s.shape[dim] == 1 or s.stride(dim) == step)
            and all(s.stride(d) == first.stride(d) for d in others)
        )
        if not fits or step <= 0:
            return torch.cat(list(slices), dim)
        position += s.shape[dim] * step
    shape, strides = list(first.shape), list(first.stride())
    shape[dim], strides[dim] = size, step
    return first.as_strided(shape, strides, first.storage_offset())
