"""A subspace of the input space and its complement: projections, random directions within either, principal angles."""

from __future__ import annotations

import math

import torch

from equivengine.errors import NumericsError, UsageError
from equivengine.linalg.directions import gaussian_directions
from equivengine.linalg.orthonormal import orthonormalise


class Subspace:
    """The row space of a matrix J [n, m] (the normal space of an encoder at a point) and its complement.

    The basis is orthonormalized in float64, since a null direction that leaks 1e-7 of the top singular direction is
    useless; projections are applied twice ("twice is enough": Parlett, The Symmetric Eigenvalue Problem, section 6.9).

    Args:
        rows: J, or any rows that span the space, such as ``SVDResult.Vh``: [n, m] with n <= m, any floating dtype; not
            changed. A rank-deficient J still gives n dimensions, the surplus ones arbitrary: so the complement is a
            subspace of the true null space, never more. Leave out rows of ``Vh`` that belong to no singular value
            above the resolution to have the normal space alone.

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
            raise NumericsError("the rows hold NaN or infinity", hint="check the model's weights and input")
        rows = rows.detach()
        basis = rows.to(torch.float64, memory_format=torch.contiguous_format)
        own = basis if basis.data_ptr() != rows.data_ptr() else None  # never over the caller's rows
        #: Orthonormal basis Q, [m, n], float64, dense along m.
        self.basis = orthonormalise(basis, out=own).Q.T

    @property
    def dim(self) -> int:
        """Number of basis vectors, n."""
        return int(self.basis.shape[1])

    @property
    def ambient(self) -> int:
        """Number of coordinates, m."""
        return int(self.basis.shape[0])

    # -- projections --------------------------------------------------------------------------------------------------

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

    # -- random directions --------------------------------------------------------------------------------------------

    def random_normal(self, key: int, start: int, count: int) -> torch.Tensor:
        """Random unit vectors, uniform on the sphere within the row space.

        Coefficients in the basis are Gaussian, so a vector depends on the basis, not on the space alone. It is a
        function of ``key`` and its number otherwise: up to roundoff it is the same however a stream is chunked.

        Args:
            key: Which stream, as for `gaussian_directions`. Take another one than for `random_null`: streams of one key
                begin with the same numbers.
            start: Number of the first vector.
            count: How many.

        Returns:
            [count, m], float64, on the basis' device.

        Raises:
            UsageError: The space has no dimension, or an argument is out of range.
        """
        if self.dim == 0:
            raise UsageError("there is no direction in a space of dimension 0", expected="dim >= 1", got="dim = 0")
        coefficients = gaussian_directions(key, start, count, self.dim, device=self.basis.device)
        return _unit(_unit(coefficients) @ self.basis.T)

    def random_null(self, key: int, start: int, count: int) -> torch.Tensor:
        """Random unit vectors, uniform on the sphere within the complement, the null space.

        Gaussian vectors are projected, normalized, and projected again, since normalizing a short remainder blows up
        what roundoff has left of the row space in it.

        Args:
            key: Which stream, as for `gaussian_directions`.
            start: Number of the first vector.
            count: How many.

        Returns:
            [count, m], float64, on the basis' device. A function of ``key``, its number and the space, up to roundoff.

        Raises:
            UsageError: The space is the whole one, or an argument is out of range.
        """
        if self.dim == self.ambient:
            raise UsageError(
                "there is no direction orthogonal to the whole space", expected="n < m", got=f"n = m = {self.dim}"
            )
        drawn = gaussian_directions(key, start, count, self.ambient, device=self.basis.device)
        return _unit(self.null(_unit(self.null(drawn))))

    # -- against another subspace -------------------------------------------------------------------------------------

    def principal_angles(self, other: Subspace) -> torch.Tensor:
        """Angles between this subspace and another one of the same R^m, ascending, in radians, 0 to pi / 2.

        The cosines are the singular values of Q1^T Q2 (Bjorck and Golub, Math. Comp. 27, 1973), the sines those of
        Q2 - Q1 Q1^T Q2. Cosines say nothing of angles below 1e-8 and sines nothing of those as near to pi / 2, so each
        is taken where it is the smaller one (Knyazev and Argentati, SIAM J. Sci. Comput. 23, 2002): every angle is
        within a few 1e-15 of that between the two bases.

        Args:
            other: The other subspace, of any dimension.

        Returns:
            [min(self.dim, other.dim)], float64. Those of two equal spans are zero to roundoff.

        Raises:
            UsageError: They lie in different spaces.
        """
        if self.ambient != other.ambient:
            raise UsageError(
                "the subspaces do not lie in one space",
                expected=f"{self.ambient} coordinates",
                got=f"{other.ambient}",
            )
        large, small = (self, other) if self.dim >= other.dim else (other, self)
        if small.dim == 0:
            return self.basis.new_empty(0)
        rows = small.basis.T.to(large.basis.device)
        cosines = torch.linalg.svdvals(rows @ large.basis).clamp_max(1)
        # Of the remainders X = L Q only the triangle counts: its singular values are X's, for k^3 instead of k^2 m.
        remainders = large.null(rows)
        sines = torch.linalg.svdvals(orthonormalise(remainders, out=remainders).L).flip(0).clamp_max(1)
        return torch.where(cosines.square() < 0.5, cosines.acos(), sines.to(cosines.device).asin())

    def grassmann_distance(self, other: Subspace) -> float:
        """Length of the shortest path between two subspaces, sqrt(sum of squared principal angles), in radians.

        Subspaces of different dimensions are compared as in Ye and Lim (SIAM J. Matrix Anal. Appl. 37, 2016): each
        missing dimension counts as an angle of pi / 2, so that this is a metric on the subspaces of all dimensions. The
        sum without them, which is zero where one contains the other, is had from `principal_angles`.

        Raises:
            UsageError: They lie in different spaces.
        """
        missing = abs(self.dim - other.dim)
        squares = float(self.principal_angles(other).square().sum())
        return math.sqrt(squares + missing * (math.pi / 2) ** 2)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
