"""Block Krylov spaces of a Jacobian on both sides, grown until the leading singular values stand still.

Block Golub-Kahan bidiagonalization with full reorthogonalization: a step takes a block of b left vectors Q to J^T Q,
orthonormalizes that against the right basis P, takes the new part to J P, and what is left of that is the next block:
2 b products, none made twice. J^T Q = R P is kept as the small matrix R, whose SVD gives the approximate (Ritz)
triplets. Nothing is squared, so small singular values stand beside large ones as accurately as products make them.
Any block size gives about the same accuracy for the same number of products where convergence is fast, and small ones
need fewer where it is slow (Chen, Epperly, Meyer and Rao, arXiv 2508.06486).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from equivengine.linalg.directions import gaussian_directions
from equivengine.linalg.orthonormal import orthonormalise
from equivengine.linalg.products import Products
from equivengine.ops.precision import ieee_float32

_PANEL = 8192
#: What is left of a unit vector when nothing but float64 roundoff is.
_EXHAUSTED = 1e-12


def _unit(rows: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / length.clamp_min(torch.finfo(torch.float64).tiny)


@dataclass
class Ritz:
    """The leading k approximate singular triplets that a space holds; B matrices at once.

    Attributes:
        values: s, [B, k], descending.
        left: U^T, [B, k, n], orthonormal rows.
        weights: [B, k, d]: V^T = weights P.
        residual: Some singular value lies within this of each value, [B, k].
        defect: |J V - U S|_F of the first j triplets for j = 1 ... k, [B, k].
        rise: [B, k]. By how much another half step, whose products are made already, raises the values.
    """

    values: Tensor
    left: Tensor
    weights: Tensor
    residual: Tensor
    defect: Tensor
    rise: Tensor

    def leading(self, k: int) -> Ritz:
        """The first k."""
        return Ritz(*(getattr(self, field.name)[:, :k] for field in fields(self)))


class BlockKrylov:
    """The basis, its products, and Rayleigh-Ritz.

    Args:
        op: Products with J.
        capacity: Most basis vectors that there will be. Memory on a CPU is taken as they come.
        seed: Stream of the random vectors.
    """

    def __init__(self, op: Products, capacity: int, seed: int) -> None:
        n, m = op.shape
        B, device = op.batch, op.device
        self.op = op
        self.size = 0
        #: How many random vectors the space was started from. No singular value shows more copies than that.
        self.starts = 0
        self._key = seed
        self._drawn = 0
        self._left = torch.empty(B, capacity, n, dtype=torch.float64, device=device)
        self._right = torch.empty(B, capacity, m, dtype=op.kept_dtype, device=device)
        self._pushed = torch.empty(B, capacity, n, dtype=torch.float64, device=device)
        #: R, with J^T Q = R P: [B, size, size].
        self._projected = torch.zeros(B, 0, 0, dtype=torch.float64, device=device)

    # -- growing ------------------------------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """How many vectors fit."""
        return int(self._left.shape[1])

    @property
    def room(self) -> int:
        """How many more vectors fit."""
        return min(self.capacity, self.op.shape[0]) - self.size

    def grow(self, block: Tensor) -> None:
        """Add orthonormal rows [B, b, n], orthogonal to the left basis: 2 b products."""
        old, new = self.size, self.size + block.shape[1]
        self._left[:, old:new] = block
        rows = self._right[:, old:new]
        rows[:] = self.op.pull(block)
        self._projected = torch.nn.functional.pad(self._projected, (0, new - old, 0, new - old))
        self._projected[:, old:, :old], self._projected[:, old:, old:] = self._orthonormalise_right(rows)
        self._pushed[:, old:new] = self.op.push(rows)
        self.size = new
        if old == 0:
            # <J p, q> against <p, J^T q>: every later step rests on it, and it costs no product.
            pushed = self._pushed[:, :new]
            lengths = torch.linalg.vector_norm(pushed, dim=2).amax(1)[:, None, None]
            self.op.check_adjoint(pushed @ block.mT, self._projected.mT, lengths)

    def _orthonormalise_right(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows = C P + L (new rows), in place: C [B, b, size] and L [B, b, b] in float64."""
        basis = self._right[:, : self.size]
        C = split_off(rows, basis) + split_off(rows, basis)
        L = orthonormalise(rows, out=rows).L
        # Normalizing a short remainder has blown up what was left of the basis in it.
        C = C + L @ split_off(rows, basis)
        return C, L @ orthonormalise(rows, out=rows).L

    def first_block(self, count: int) -> Tensor:
        """Random orthonormal rows, [B, count, n]."""
        return self._orthonormal_to_basis(self._random(count))

    def next_block(self, sources: list[int]) -> Tensor:
        """Orthonormal rows [B, b, n]: what J J^T made of the basis vectors with these numbers."""
        return self._orthonormal_to_basis(self._pushed[:, sources[: self.room]])

    def _random(self, count: int) -> Tensor:
        """[B, count, n]: the same for every matrix of a batch, so that its composition does not matter."""
        drawn = gaussian_directions(self._key, self._drawn, count, self.op.shape[0]).to(self._left.device)
        self._drawn += count
        self.starts += count
        return _unit(drawn).expand(self._left.shape[0], -1, -1)

    def _orthonormal_to_basis(self, rows: Tensor) -> Tensor:
        """Orthonormal rows in the span of rows and basis, orthogonal to the basis; exhausted ones are drawn anew."""
        rows, length = self._without_basis(_unit(rows))
        while bool((lost := length <= _EXHAUSTED).any()):
            rows = torch.where(lost[:, :, None], self._random(rows.shape[1]), rows)
            self.starts += int(lost.sum(1).max()) - rows.shape[1]
            rows, length = self._without_basis(rows)
        # Once more: normalizing a short remainder has blown up what was left of the basis in it.
        return self._without_basis(rows)[0]

    def _without_basis(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows without the basis, projected twice and orthonormalized, and what length each had kept."""
        Q = self._left[:, : self.size]
        for _ in range(2):
            rows = rows - (rows @ Q.mT) @ Q
        columns, triangle = torch.linalg.qr(rows.mT)
        return columns.mT, torch.diagonal(triangle, dim1=1, dim2=2).abs()

    # -- reading ------------------------------------------------------------------------------------------------------

    def ritz(self) -> Ritz:
        """Rayleigh-Ritz: J^T u = s v holds in the space, J v = s u up to the residual.

        (u, v) / sqrt(2) is a unit vector for the symmetric matrix [[0, J], [J^T, 0]], so some singular value lies
        within |J v - s u| / sqrt(2) of s.
        """
        d = self.size
        X, values, Y = torch.linalg.svd(self._projected)
        left = X.mT @ self._left[:, :d]
        pushed = self._pushed[:, :d]
        defects = torch.linalg.vector_norm(Y @ pushed - values[:, :, None] * left, dim=2)
        raised = torch.linalg.svdvals(pushed)
        return Ritz(
            values=values,
            left=left,
            weights=Y,
            residual=defects / 2**0.5,
            defect=defects.square().cumsum(1).sqrt(),
            rise=(raised - values).clamp_min(0),
        )

    def raised_ritz(self) -> Ritz:
        """The triplets half a step further: J v = s u holds up to roundoff, J^T u = s v is not looked at.

        They come from products that are made already. Their residual is that of `ritz`, and by how much they moved.
        """
        before = self.ritz()
        columns, raised, rows = torch.linalg.svd(self._pushed[:, : self.size].mT, full_matrices=False)
        rise = (raised - before.values).clamp_min(0)
        return Ritz(
            values=raised,
            left=columns.mT,
            weights=rows,
            residual=before.residual + rise,
            defect=before.defect,
            rise=rise,
        )

    def right_vectors(self, ritz: Ritz) -> Tensor:
        """V^T, [B, k, m] in the operator's dtype."""
        return _times(ritz.weights, self._right[:, : self.size])

    def pulled_from(self, rows: Tensor) -> Tensor:
        """|J^T q - row| for each vector q of the left basis and row of [B, size, m]: [B, size]."""
        basis = self._right[:, : self.size]
        panels = zip(basis.split(_PANEL, dim=2), rows.split(_PANEL, dim=2), strict=True)
        squares = [(self._projected @ each.to(torch.float64) - row).square().sum(2) for each, row in panels]
        return torch.stack(squares).sum(0).sqrt()

    def complete(self) -> tuple[Tensor, Tensor]:
        """A basis Q [B, n, n] of the whole left space, and J^T Q as rows [B, n, m]; n - size products.

        The space must have been made with capacity n; it is used up.
        """
        n, d = self.op.shape[0], self.size
        self._left[:, d:] = torch.linalg.qr(self._left[:, :d].mT, mode="complete").Q[:, :, d:].mT
        _times(self._projected, self._right[:, :d], out=self._right[:, :d])
        for start in range(d, n, step := max(1, self.op.chunk(n - d))):
            stop = min(start + step, n)
            self._right[:, start:stop] = self.op.pull(self._left[:, start:stop])
        return self._left, self._right


def split_off(rows: Tensor, basis: Tensor) -> Tensor:
    """Subtract from rows [B, b, m], in place, their part in the basis [B, d, m]; returns its coefficients [B, b, d]."""
    found = torch.zeros(*rows.shape[:2], basis.shape[1], dtype=torch.float64, device=rows.device)
    with ieee_float32():
        for some, panel in zip(rows.split(_PANEL, dim=2), basis.split(_PANEL, dim=2), strict=True):
            found += some @ panel.mT
        weights = found.to(rows.dtype)
        for some, panel in zip(rows.split(_PANEL, dim=2), basis.split(_PANEL, dim=2), strict=True):
            some -= weights @ panel
    return found


def _times(weights: Tensor, rows: Tensor, out: Tensor | None = None) -> Tensor:
    """Weights [B, k, d] times rows [B, d, m] in float64 by panels; ``out`` may be the rows where k = d."""
    if out is None:
        out = rows.new_empty(rows.shape[0], weights.shape[1], rows.shape[2])
    for into, panel in zip(out.split(_PANEL, dim=2), rows.split(_PANEL, dim=2), strict=True):
        into[:] = weights @ panel.to(torch.float64)
    return out
