"""The linear model of the encoder at x: all of J, or its leading singular triplets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import equivengine as eqv

if TYPE_CHECKING:
    from equivengine_plugins.probes.lsb.evaluation import Evaluation
    from equivengine_plugins.probes.lsb.parameters import LsbParams

#: "auto" writes J out if its singular vectors take no more than this in float64.
EXACT_BYTES = 64 << 20
#: Singular triplets of the randomized way.
LEADING = 8


@dataclass(frozen=True)
class Linear:
    """J up to a rotation of the embedding: diag(s) V^T [r, m], of which all lengths |J d| are those of J.

    Where only leading triplets are known, lengths are those of J's leading part, never more than J's.

    Attributes:
        values: s, [r], descending, float64.
        vectors: V^T, [r, m], float64.
        error: How far s_1 may be off.
        resolution: Size below which a singular value is roundoff.
        whole: Whether all of J is in it.
        step: One level, in input units.
        note: How it was found, and why so.
        status: ``"ok"``, or ``"not_converged"`` where `error` exceeds what was asked for.
    """

    values: torch.Tensor
    vectors: torch.Tensor
    error: float
    resolution: float
    whole: bool
    step: float
    note: str
    status: str

    @classmethod
    def of(cls, task: eqv.ProbeTask[LsbParams], evaluation: Evaluation) -> Linear:
        """The linear model at the image of an evaluation.

        Raises:
            NumericsError: If J is zero, or a product with it is not finite.
        """
        operator = evaluation.operator
        n, m = operator.shape
        method = task.params.method
        if method == "auto":
            method = "exact" if 8 * min(n, m) * m <= EXACT_BYTES else "randomized"
        options: dict[str, Any] = {"rank": min(LEADING, n, m)} if method == "randomized" else {}
        found = eqv.linalg.svd(operator, method=method, seed=task.stream("svd"), **options).require()
        if float(found.S[0]) == 0:
            raise eqv.NumericsError(
                "the Jacobian is exactly zero here",
                expected="an image at which the encoder reacts to something",
                hint="leave this image out",
            )
        assert found.Vh is not None
        return cls(
            values=found.S.to(operator.x.device),
            vectors=found.Vh.to(operator.x.device, torch.float64),
            error=float(found.error[0]),
            resolution=found.resolution,
            whole=len(found.S) == min(n, m),
            step=evaluation.lattice.step,
            note=found.message,
            status=found.status,
        )

    @property
    def column_norms(self) -> torch.Tensor:
        """|J e_j| of every pixel j, [m]; of the leading part a lower bound of it."""
        return torch.linalg.vector_norm(self.values[:, None] * self.vectors, dim=0)

    def push(self, moves: torch.Tensor) -> torch.Tensor:
        """J d of moves in levels, in the basis of left singular vectors: [K, m] -> [K, r]."""
        return (self.step * moves.double()) @ self.vectors.T * self.values

    def pull(self, cotangents: torch.Tensor) -> torch.Tensor:
        """J^T u of u in the same basis: [K, r] -> [K, m]."""
        return (cotangents * self.values) @ self.vectors

    def lengths(self, moves: torch.Tensor) -> torch.Tensor:
        """|J d| of moves in levels: [K, m] -> [K]."""
        return torch.linalg.vector_norm(self.push(moves), dim=1)

    def mean_square(self, mean: torch.Tensor, variance: torch.Tensor) -> float:
        """E |J d|^2 of moves with independent pixels of given mean and variance, [m] each, in levels."""
        spread = float((self.column_norms.square() * variance).sum()) * self.step**2
        return float(self.push(mean[None]).square().sum()) + spread
