"""Singular values and vectors of a wide matrix or Jacobian operator, with the size below which they mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from equivengine.errors import NumericsError, UsageError

#: Relative resolution s / s_1 of a float32 Jacobian. Its own entries are wrong by 1e-10 .. 1e-7 s_1 (roundoff of the
#: derivative itself), so singular values below 1e-6 s_1 are noise, however carefully they are computed.
RESOLUTION = {torch.float32: 1e-6, torch.float64: 1e-14}


@runtime_checkable
class DenseOperator(Protocol):
    """Anything with a shape that can write itself out, such as `equivengine.JacobianOperator`."""

    shape: tuple[int, int]

    def dense(self) -> torch.Tensor:
        """The matrix [n, m]."""
        ...


@dataclass(frozen=True)
class SVDResult:
    """J = U diag(S) Vh.

    Attributes:
        U: Left singular vectors [n, r], float64.
        S: Singular values [r], float64, descending. Values below `resolution` are noise.
        Vh: Right singular vectors [r, m], float64, orthonormal rows; ``None`` if not asked for.
        resolution: Absolute size below which a singular value is not resolved.
        frobenius: |J|_F, from the entries, not from S.
        method: ``"gram"`` (eigenvalues of the float64 J J^T) or ``"qr"`` (SVD of the triangle of a float64 QR).
        products: Matrix-vector products with J or J^T that were spent.
    """

    U: torch.Tensor
    S: torch.Tensor
    Vh: torch.Tensor | None
    resolution: float
    frobenius: float
    method: str
    products: int

    @property
    def rank(self) -> int:
        """Number of singular values above `resolution`."""
        return int(self.S.gt(self.resolution).sum())


def svd(matrix: torch.Tensor | DenseOperator, *, vectors: bool = True) -> SVDResult:
    """Exact singular values (and vectors) of a wide matrix [n, m], n <= m.

    float32 input: the Gram matrix J J^T is accumulated in float64 by panels of columns, so that squaring the condition
    number costs nothing that float32 entries had; V = J^T U / s is orthonormalised again. float64 input: SVD of the
    triangular factor of J^T = Q R, which resolves values down to 1e-14 s_1.

    Args:
        matrix: J, or an operator that has ``dense()``.
        vectors: Whether to compute Vh (n m numbers in float64).

    Raises:
        UsageError: If J is not wide or has another dtype.
        NumericsError: If J holds NaN or infinity.
    """
    products = 0
    if not isinstance(matrix, torch.Tensor):
        products = min(matrix.shape)
        matrix = matrix.dense()
    if matrix.dim() != 2 or matrix.shape[0] > matrix.shape[1]:
        raise UsageError("svd needs a wide matrix", expected="[n, m] with n <= m", got=list(matrix.shape))
    if matrix.dtype not in RESOLUTION:
        raise UsageError("svd needs float32 or float64", got=matrix.dtype)
    if not bool(torch.isfinite(matrix).all()):
        raise NumericsError("the Jacobian holds NaN or infinity", hint="check the model's weights and input")
    if matrix.dtype == torch.float64:
        return _by_qr(matrix, vectors, products)
    return _by_gram(matrix, vectors, products)


def _by_gram(matrix: torch.Tensor, vectors: bool, products: int) -> SVDResult:
    gram = gram_matrix(matrix)
    values, U = torch.linalg.eigh(gram)
    S = values.flip(0).clamp_min(0).sqrt()
    U = U.flip(1).contiguous()
    resolution = RESOLUTION[torch.float32] * float(S[0]) if len(S) else 0.0
    Vh = _right_vectors(matrix, U, S, resolution) if vectors else None
    return SVDResult(U, S, Vh, resolution, float(gram.trace().sqrt()), "gram", products)


def _by_qr(matrix: torch.Tensor, vectors: bool, products: int) -> SVDResult:
    if vectors:
        Q, R = torch.linalg.qr(matrix.T)
        U, S, Wh = torch.linalg.svd(R.T)
        Vh: torch.Tensor | None = Wh @ Q.T
    else:
        R = torch.linalg.qr(matrix.T, mode="r").R
        U, S, _ = torch.linalg.svd(R.T)
        Vh = None
    resolution = RESOLUTION[torch.float64] * float(S[0]) if len(S) else 0.0
    return SVDResult(U, S, Vh, resolution, float(torch.linalg.vector_norm(matrix)), "qr", products)


def gram_matrix(matrix: torch.Tensor, panel: int = 16384) -> torch.Tensor:
    """J J^T in float64, [n, n], from J [n, m] by panels of columns: one float64 panel at a time, never a copy of J."""
    n = matrix.shape[0]
    gram = torch.zeros(n, n, dtype=torch.float64, device=matrix.device)
    for columns in matrix.split(panel, dim=1):
        wide = columns.to(torch.float64)
        gram.addmm_(wide, wide.T)
    return gram


def _right_vectors(matrix: torch.Tensor, U: torch.Tensor, S: torch.Tensor, resolution: float) -> torch.Tensor:
    """V^T from J^T U / s, orthonormalised. QR leaves the leading vectors in place and repairs the trailing ones."""
    V = matrix.T.to(torch.float64) @ U
    V /= S.clamp_min(max(resolution, torch.finfo(torch.float64).tiny))
    Q, R = torch.linalg.qr(V)
    signs = torch.where(R.diagonal() < 0, -1.0, 1.0)
    return (Q * signs).T.contiguous()
