"""Instructions that compute: products with weights, convolutions, normalization and attention.

Mathematics: a layer y = F(x) contributes dy = F'(x) dx; what F'(x) needs of the primal (probabilities, statistics,
factors) is computed once, when the layer is traced, and shared by all directions in both modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from equivengine.linearize.arithmetic import Arithmetic, Matrix
from equivengine.linearize.nodes import Node, Owned, Shape
from equivengine.ops.attention import attention_jvp, attention_vjp, cotangents_of
from equivengine.ops.layer_norm import layer_norm_jvp, layer_norm_vjp
from equivengine.ops.rms_norm import rms_norm_jvp, rms_norm_vjp
from equivengine.ops.softmax import softmax_jvp


@dataclass(eq=False)
class Linear(Node):
    """x W^T along the last dimension; the bias has no derivative."""

    weight: Tensor  # [out, in]
    rank: int  # dimensions of the primal
    rule: ClassVar[str] = "matrix product"
    adds_onto: ClassVar[str] = "owned"

    def bind(self, arithmetic: Arithmetic) -> None:
        self.matrix: Matrix = arithmetic.matrix(self.weight)

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        return [self.matrix.rows(tangents[0])]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        return [self.matrix.columns(cotangents[0], onto)]

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        if dim == self.rank - 1:  # some of the features
            return Linear(self.weight.narrow(0, start, length), self.rank, source=self.source), [None]
        return Linear(self.weight, self.rank, source=self.source), [dim]


@dataclass(eq=False)
class LinearAdd(Linear):
    """x W^T + y: a layer that ends in a skip connection, in one pass over y. Inputs (x, y)."""

    reuses: ClassVar[int | None] = 1

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        t, skip = tangents
        onto = skip if mine[1] and skip.is_contiguous() else skip.clone(memory_format=torch.contiguous_format)
        return [self.matrix.rows(t, onto)]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        return [self.matrix.columns(cotangents[0], onto), cotangents[0]]

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        return None  # made after slices have moved


@dataclass(eq=False)
class PatchEmbedding(Node):
    """A convolution whose stride is its kernel: a matrix product with non-overlapping patches."""

    weight: Tensor  # [out, channels, *kernel]
    before: Shape  # [B, channels, *size]
    rule: ClassVar[str] = "matrix product"

    def bind(self, arithmetic: Arithmetic) -> None:
        self.matrix = arithmetic.matrix(self.weight.flatten(1))
        self.kernel = tuple(self.weight.shape[2:])
        self.grid = tuple(n // k for n, k in zip(self.before[2:], self.kernel, strict=True))
        # [K, B, C, g1, k1, g2, k2, ...] <-> [K, B, g1, g2, ..., C, k1, k2, ...]
        n = len(self.kernel)
        self.order = (0, 1, *(3 + 2 * i for i in range(n)), 2, *(4 + 2 * i for i in range(n)))

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        (t,) = tangents
        for axis, (g, k) in enumerate(zip(self.grid, self.kernel, strict=True)):
            t = t.narrow(3 + axis, 0, g * k)  # what does not fill a patch is not read
        blocks = [n for pair in zip(self.grid, self.kernel, strict=True) for n in pair]
        patches = t.reshape(*t.shape[:3], *blocks).permute(self.order).flatten(2 + len(self.grid))
        return [self.matrix.rows(patches).movedim(-1, 2)]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        g = cotangents[0].movedim(2, -1)
        patches = self.matrix.columns(g).reshape(*g.shape[:-1], self.before[1], *self.kernel)
        inverse = [self.order.index(d) for d in range(len(self.order))]
        covered = [n * k for n, k in zip(self.grid, self.kernel, strict=True)]
        image = patches.permute(inverse).reshape(*g.shape[:2], self.before[1], *covered)
        if list(self.before[2:]) == covered:
            return [image]
        whole = g.new_zeros(len(g), *self.before)
        whole[(..., *(slice(0, n) for n in covered))] = image
        return [whole]


@dataclass(eq=False)
class Convolution(Node):
    """Any other convolution with constant weights; directions join the batch."""

    weight: Tensor
    before: Shape  # [B, channels, *size]
    options: tuple[Any, ...]  # stride, padding, dilation, transposed, output_padding, groups
    rule: ClassVar[str] = "convolution"

    def bind(self, arithmetic: Arithmetic) -> None:
        self.weight = arithmetic.constant(self.weight)

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        (t,) = tangents
        out = torch.ops.aten.convolution(t.flatten(0, 1), self.weight, None, *self.options)
        return [out.reshape(len(t), self.before[0], *out.shape[1:])]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        (g,) = cotangents
        # Only the input's shape is read, as in torch.nn.grad.conv2d_input.
        shape = (len(g) * self.before[0], *self.before[1:])
        arguments = (g.flatten(0, 1), g.new_empty(1).expand(shape), self.weight, None, *self.options)
        image = torch.ops.aten.convolution_backward(*arguments, [True, False, False])[0]
        return [image.reshape(len(g), *self.before)]


@dataclass(eq=False)
class MatMul(Node):
    """a @ b with batch dimensions; either may be constant (then it is not among the inputs)."""

    a: Tensor
    b: Tensor
    of_a: bool = True
    of_b: bool = True
    rule: ClassVar[str] = "matrix product"

    def bind(self, arithmetic: Arithmetic) -> None:
        self.a, self.b = arithmetic.constant(self.a), arithmetic.constant(self.b)

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        terms = []
        rest = list(tangents)
        if self.of_a:
            terms.append(rest.pop(0) @ self.b)
        if self.of_b:
            terms.append(self.a @ rest.pop(0))
        return [terms[0] if len(terms) == 1 else terms[0].add_(terms[1])]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        (g,) = cotangents
        out = []
        if self.of_a:
            out.append(g @ self.b.mT)
        if self.of_b:
            out.append(self.a.mT @ g)
        return out

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        if dim != self.a.dim() - 2:
            return None
        smaller = MatMul(self.a.narrow(dim, start, length), self.b, self.of_a, self.of_b, source=self.source)
        return smaller, [dim] * self.of_a + [None] * self.of_b


@dataclass(eq=False)
class Norm(Node):
    """LayerNorm or RMSNorm over the last dimensions."""

    x: Tensor  # [*rows, *normalised]
    mean: Tensor | None  # [*rows]; None for RMSNorm
    rstd: Tensor  # [*rows]
    weight: Tensor | None  # [*normalised]
    adds_onto: ClassVar[str] = "any"

    def bind(self, arithmetic: Arithmetic) -> None:
        self.flat_x = self.x.reshape(self.rstd.numel(), -1)
        if arithmetic.dtype not in (torch.bfloat16, self.x.dtype):
            self.flat_x = arithmetic.constant(self.flat_x)
        self.stats = [t.reshape(-1).contiguous() for t in (self.mean, self.rstd) if t is not None]
        self.flat_weight = None if self.weight is None else self.weight.reshape(-1).to(self.flat_x.dtype)

    def _flat(self, t: Tensor) -> Tensor:
        return t.reshape(len(t), *self.flat_x.shape)

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        (t,) = tangents
        rule = rms_norm_jvp if self.mean is None else layer_norm_jvp
        return [rule(self._flat(t), self.flat_x, *self.stats, self.flat_weight).view(t.shape)]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        (g,) = cotangents
        rule = rms_norm_vjp if self.mean is None else layer_norm_vjp
        residual = None if onto is None else self._flat(onto)
        return [rule(self._flat(g), self.flat_x, *self.stats, self.flat_weight, residual).view(g.shape)]

    def coverage(self) -> str:
        rule = rms_norm_jvp if self.mean is None else layer_norm_jvp
        return rule.path(self.flat_x[None], self.flat_x, *self.stats, self.flat_weight)

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        if dim >= self.rstd.dim():
            return None
        x, rstd = (t.narrow(dim, start, length) for t in (self.x, self.rstd))
        mean = None if self.mean is None else self.mean.narrow(dim, start, length)
        return Norm(x, mean, rstd, self.weight, source=self.source), [dim]


@dataclass(eq=False)
class Attention(Node):
    """softmax(scale Q K^T + mask) V over heads [B, H, L, E]; inputs are those of q, k, v that depend on x."""

    q: Tensor
    k: Tensor
    v: Tensor
    p: Tensor  # [B, H, L, S]
    scale: float
    of: Sequence[bool] = (True, True, True)

    def bind(self, arithmetic: Arithmetic) -> None:
        self.q, self.k, self.v, self.p = (arithmetic.constant(t) for t in (self.q, self.k, self.v, self.p))
        self.precision = arithmetic.attention

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        given = iter(tangents)
        dq, dk, dv = (next(given) if each else None for each in self.of)
        return [attention_jvp(dq, dk, dv, self.q, self.k, self.v, self.p, self.scale, self.precision)]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        heads = (self.q, self.k, self.v)
        grads = cotangents_of(attention_vjp(cotangents[0], *heads, self.p, self.scale, self.precision), *heads)
        return [g for g, each in zip(grads, self.of, strict=True) if each]

    def coverage(self) -> str:
        tangents = (t[None] for t in (self.q, self.k, self.v))
        return attention_jvp.path(*tangents, self.q, self.k, self.v, self.p, self.scale, self.precision)

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        if dim != 2:
            return None
        q, p = (t.narrow(2, start, length) for t in (self.q, self.p))
        smaller = Attention(q, self.k, self.v, p, self.scale, self.of, source=self.source)
        return smaller, [at for at, each in zip((2, None, None), self.of, strict=True) if each]


@dataclass(eq=False)
class Softmax(Node):
    """Over the last dimension; its Jacobian is symmetric."""

    p: Tensor

    def bind(self, arithmetic: Arithmetic) -> None:
        self.rows = self.p.reshape(-1, self.p.shape[-1])
        if arithmetic.dtype not in (torch.bfloat16, self.rows.dtype):
            self.rows = arithmetic.constant(self.rows)

    def push(self, tangents: list[Tensor], mine: Owned) -> list[Tensor]:
        (t,) = tangents
        return [softmax_jvp(t.reshape(len(t), *self.rows.shape), self.rows).view(t.shape)]

    def pull(self, cotangents: list[Any], mine: Owned, onto: Tensor | None) -> list[Any]:
        return self.push(cotangents, mine)

    def coverage(self) -> str:
        return softmax_jvp.path(self.rows[None], self.rows)

    def narrowed(self, dim: int, start: int, length: int) -> tuple[Node, list[int | None]] | None:
        if dim == self.p.dim() - 1:
            return None
        return Softmax(self.p.narrow(dim, start, length), source=self.source), [dim]
