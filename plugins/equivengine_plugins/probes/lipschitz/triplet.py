"""The top singular triplet of many Jacobians at once, warm-started.

`equivengine.linalg.svd` starts from random vectors each time. Along an ascent neighboring points nearly share their
top singular vectors: on digits, three Ritz vectors of the last point need 5 passes (7 products) to a residual of
1e-4 s_1, a random vector 9. All starts of an ascent go through one pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

import equivengine as eqv

#: Right Ritz vectors that are handed on. More than one, since singular values cross along a path, and a start from v_1
#: alone would then follow what has become the second. Should one from further down overtake these, a warm start may
#: miss it (what it finds is a lower bound still): so the end of a path is measured again from random vectors.
KEPT = 3
#: Basis vectors at which an iteration gives up; the residual then says how far it came.
MAX_BASIS = 48


@dataclass(frozen=True)
class Triplets:
    """Top singular triplets of B matrices [n, m]; float64.

    Attributes:
        s: [B]. A Ritz value: never above s_1, but for roundoff of the products.
        u: Left vectors [B, n], unit.
        v: Right Ritz vectors [B, k, m] from the top, orthonormal; ``v[:, 0]`` belongs to `s`.
        residual: |J^T u - s v|, [B]: some singular value lies within it of s.
        products: Products with one J or one J^T that were spent on each matrix.
    """

    s: torch.Tensor
    u: torch.Tensor
    v: torch.Tensor
    residual: torch.Tensor
    products: int

    def where(self, mask: torch.Tensor, other: Triplets) -> Triplets:
        """These where mask [B] holds, and others elsewhere."""
        return Triplets(
            torch.where(mask, self.s, other.s),
            torch.where(mask[:, None], self.u, other.u),
            torch.where(mask[:, None, None], self.v, other.v),
            torch.where(mask, self.residual, other.residual),
            self.products,
        )


def top_triplets(operator: eqv.JacobianOperator, start: torch.Tensor, tol: float) -> Triplets:
    """Rayleigh-Ritz on a growing basis: the largest singular values with their vectors.

    The basis V begins with ``start`` and grows by the residual J^T u - s v of the current top triplet, made orthogonal
    to V. From one starting vector this spans the Krylov space of J^T J, as Golub-Kahan-Lanczos does with full
    reorthogonalization (Golub and Van Loan, Matrix Computations, 4th ed., section 10.4), but any start is allowed and
    the true residual comes with each step. Roundoff of float32 products limits the residual to about 1e-6 s_1.

    Args:
        operator: The Jacobians at a batch of B inputs.
        start: Linearly independent vectors [B, k, m].
        tol: Stop when each residual is at most ``tol * s``.

    Raises:
        UsageError: If the operator is not one of a batch, or start has another shape.
    """
    batch = len(operator.x)
    m = operator.shape[1]
    if not operator.batched or start.dim() != 3 or start.shape[::2] != (batch, m):
        raise eqv.UsageError(
            "start must hold vectors for each input of a batch", expected=f"[{batch}, k, {m}]", got=list(start.shape)
        )
    inputs = operator.x.shape[1:]

    def jvp(rows: torch.Tensor) -> torch.Tensor:
        tangents = rows.transpose(0, 1).reshape(-1, batch, *inputs)
        return operator.jvp(tangents).to(torch.float64).transpose(0, 1)  # [B, k, n]

    V = torch.linalg.qr(start.to(torch.float64).mT).Q.mT
    Y = jvp(V)
    products = V.shape[1]
    while True:
        # J V^T = Y^T, and the top right singular vector of Y^T gives the combination of basis vectors.
        U, S, Ch = torch.linalg.svd(Y.mT, full_matrices=False)
        ritz = Ch[:, :KEPT] @ V
        s, u, v = S[:, 0], U[:, :, 0], ritz[:, 0]
        gap = operator.vjp(u[None])[0].flatten(1).to(torch.float64) - s[:, None] * v
        products += 1
        residual = torch.linalg.vector_norm(gap, dim=1)
        floor = torch.finfo(operator.dtype).eps * s
        if bool((residual <= torch.maximum(tol * s, floor)).all()) or V.shape[1] >= min(MAX_BASIS, m):
            return Triplets(s, u, ritz, residual, products)
        new = gap
        for _ in range(2):
            new = new - (V.mT @ (V @ new[:, :, None]))[:, :, 0]
            # A residual that has vanished in one matrix of the batch stays zero: it adds nothing to that basis.
            length = torch.linalg.vector_norm(new, dim=1, keepdim=True)
            new = torch.where(length > 0, new / length.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
        V = torch.cat([V, new[:, None]], dim=1)
        Y = torch.cat([Y, jvp(new[:, None])], dim=1)
        products += 1
