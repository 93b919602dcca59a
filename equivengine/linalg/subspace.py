"""Orthogonal projection onto a row space and onto its complement, the null space."""

from __future__ import annotations

import torch

from equivengine.errors import NumericsError


class Subspace:
    """The row space of a matrix J [n, m] (the normal space of an encoder at a point) and its complement.

    The basis is orthonormalised in float64, since a null direction that leaks 1e-7 of the top singular direction is
    useless; projections are applied twice ("twice is enough": Parlett, The Symmetric Eigenvalue Problem, section 6.9).

    Args:
        rows: J, [n, m] with n <= m, any floating dtype; not changed.

    Raises:
        NumericsError: If J holds NaN or infinity, or has more rows than columns.
    """

    def __init__(self, rows: torch.Tensor) -> None:
        if rows.dim() != 2 or rows.shape[0] > rows.shape[1]:
            raise NumericsError(
                "a row space needs a matrix with no more rows than columns",
                expected="[n, m] with n <= m",
                got=list(rows.shape),
            )
        if not bool(torch.isfinite(rows).all()):
            raise NumericsError("the Jacobian holds NaN or infinity", hint="check the model's weights and input")
        #: Orthonormal basis Q of the row space, [m, n], float64. A rank-deficient J still gives n columns: the
        #: surplus ones are arbitrary, so the complement is a subspace of the true null space, never more.
        self.basis = torch.linalg.qr(rows.to(torch.float64).T).Q

    @classmethod
    def from_orthonormal(cls, rows: torch.Tensor) -> Subspace:
        """The span of rows [n, m] that are orthonormal already, such as ``SVDResult.Vh``; no second QR.

        Raises:
            NumericsError: If they are not orthonormal to 1e-8.
        """
        space = cls.__new__(cls)
        space.basis = rows.to(torch.float64).T
        gram = space.basis.T @ space.basis
        gap = float((gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).abs().max()) if len(gram) else 0
        if not gap <= 1e-8:
            raise NumericsError("the rows are not orthonormal", expected="within 1e-8", got=f"{gap:.1e}")
        return space

    @property
    def dim(self) -> int:
        """Number of basis vectors, n."""
        return int(self.basis.shape[1])

    def normal(self, vectors: torch.Tensor) -> torch.Tensor:
        """Component within the row space: [K, m] -> [K, m], float64."""
        vectors = vectors.to(torch.float64)
        return vectors - self.null(vectors)

    def null(self, vectors: torch.Tensor) -> torch.Tensor:
        """Component orthogonal to the row space: [K, m] -> [K, m], float64, projected twice."""
        vectors = vectors.to(torch.float64)
        for _ in range(2):
            vectors = vectors - (vectors @ self.basis) @ self.basis.T
        return vectors
