"""What an SVD found, how far it may be off, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from equivengine.errors import NumericsError

Method = Literal["exact", "randomized"]
Status = Literal["ok", "not_converged", "failed"]
Identified = Literal["identified", "not_converged", "not_identifiable"]

#: Relative resolution s / s_1 of a Jacobian in a precision. float32 entries of a derivative are themselves wrong by
#: 1e-10 .. 1e-7 s_1 (roundoff of the derivative), so singular values below 1e-6 s_1 are noise, however they are found.
RESOLUTION = {torch.float32: 1e-6, torch.float64: 2e-14}


@dataclass(frozen=True)
class SVDResult:
    """J = U diag(S) Vh, or its leading part. For a batch of B matrices every tensor has a leading dimension B.

    Signs: the entry of largest magnitude of every singular vector of the shorter side is positive: the left one where
    n <= m, so that J^T has the transposed result.

    Attributes:
        U: Left singular vectors [n, r], float64, orthonormal columns; where n > m, to the operator's precision.
        S: Singular values [r], float64, descending.
        Vh: Right singular vectors [r, m] in the operator's dtype, orthonormal rows; ``None`` if not asked for.
        lower: [r]. ``S`` minus roundoff: the i-th singular value is never below ``lower[i]`` (Ritz values are lower
            bounds by the minimax principle).
        residual: [r]. Some singular value lies within ``residual[i]`` of ``S[i]``, always.
        error: [r]. How far the i-th singular value may be off: an estimate, meant to hold where ``status`` is ok.
        resolution: Size below which a singular value is roundoff; a number, for a batch the largest.
        noise: Largest |(J - J_64)^T u| over the leading left vectors u, J_64 being J in float64; None where it was not
            measured.
        method: ``"exact"`` (all rows of J were made) or ``"randomized"`` (block Krylov).
        products: Products with J and J^T that were spent, for each matrix of a batch.
        products_by_precision: The same by the precision that they were made in.
        status: ``"ok"``; ``"not_converged"`` (``lower`` and ``residual`` stand, ``error`` exceeds ``tol``); or
            ``"failed"`` (a product was not finite: all numbers are NaN).
        message: Why this method was taken, and what to do about a status other than ok.
        subspace: Whether the span of the vectors is determined. ``"not_identifiable"``: S[r-1] and the next singular
            value agree within their errors, so that no accuracy would single out this subspace;
            ``"not_converged"``: it could be determined with a smaller ``tol``.
        subspace_error: Estimated sine of the largest angle between span(Vh) and the true singular subspace, at most 1.
        frobenius: |J|_F, a scalar or [B], float64, where all rows were made; else ``None``.
    """

    U: torch.Tensor
    S: torch.Tensor
    Vh: torch.Tensor | None
    lower: torch.Tensor
    residual: torch.Tensor
    error: torch.Tensor
    resolution: float
    method: Method
    products: int
    status: Status
    message: str
    subspace: Identified
    subspace_error: float
    frobenius: torch.Tensor | None = None
    noise: float | None = None
    products_by_precision: Mapping[str, int] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """Number of singular values above `resolution`; of one matrix."""
        return int(self.S.gt(self.resolution).sum())

    def require(self) -> SVDResult:
        """Return this result unless it failed.

        Raises:
            NumericsError: Its status is "failed".
        """
        if self.status == "failed":
            raise NumericsError(
                "the singular values could not be computed",
                got=self.message,
                hint="check the weights and the input, or look at status and message instead of calling require",
            )
        return self
