"""The linear model J d at the points of a batch: formed, or by products alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import torch

from equivengine.matching.problem import finite

if TYPE_CHECKING:
    from equivengine.matching.problem import Problem

Mode = Literal["dense", "products"]

#: Up to this n a dense J is cheaper on a CPU than inner iterations, one direction at a time.
SMALL_N = 128
#: Bytes of dense float64 Jacobians that are held at once.
DENSE_BYTES = 4 << 30
#: Conjugate-gradient iterations for one system; the answer is then used as it is.
MOST_CG = 60


class System(Protocol):
    """A matrix [n, m] for each of k points, with what a box-constrained least-squares step needs of it."""

    #: Whether `solve` is exact to roundoff.
    exact: bool

    def forward(self, d: torch.Tensor) -> torch.Tensor:
        """J d: [k, m] -> [k, n]."""

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """J^T y: [k, n] -> [k, m]."""

    def solve(
        self, free: torch.Tensor, weight: torch.Tensor, rhs: torch.Tensor, active: torch.Tensor, tolerance: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Solve (weight I + J F J^T) p = rhs with F = diag(free); returns p and J^T p.

        Args:
            free: Zeros and ones, [k, m].
            weight: Positive, [k].
            rhs: [k, n].
            active: Which points to solve for, [k], bool; the others get 0.
            tolerance: Relative residual at which an inexact solver may stop.
        """


class LinearModel(System, Protocol):
    """J of k points, k <= B: [k, n, m]."""

    def refresh(self, rows: torch.Tensor, z: torch.Tensor, which: torch.Tensor) -> None:
        """Move ``rows`` [j] of this model to points z [j, m] of pairs ``which`` [j]."""

    def take(self, rows: torch.Tensor) -> LinearModel:
        """The model of some of its points alone. Refresh the whole, not the part."""


def choose(problem: Problem, wanted: Literal["auto", "dense", "products"]) -> Mode:
    """Dense where n is small, or where a GPU makes n products at once cheaper than dozens one after the other."""
    if wanted != "auto":
        return wanted
    fast = problem.origin.device.type == "cuda"
    return "dense" if formable(problem) and (problem.n <= SMALL_N or fast) else "products"


def formable(problem: Problem) -> bool:
    """Whether one J in float64 takes no more than its share of memory."""
    return 8 * problem.n * problem.m <= DENSE_BYTES // 4


class Formed:
    """Matrices J [k, n, m] that are there, float64."""

    exact = True

    def __init__(self, J: torch.Tensor) -> None:
        self.J = J

    def forward(self, d: torch.Tensor) -> torch.Tensor:
        """J d."""
        return (self.J @ d[..., None])[..., 0]

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """J^T y."""
        return (self.J.mT @ y[..., None])[..., 0]

    def solve(
        self, free: torch.Tensor, weight: torch.Tensor, rhs: torch.Tensor, active: torch.Tensor, tolerance: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """By Cholesky; exact whatever ``tolerance`` is."""
        J = self.J if bool(active.all()) else self.J[active]
        gram = (J * free[active][:, None, :]) @ J.mT
        diagonal = gram.diagonal(dim1=1, dim2=2)
        # J F J^T is singular where embeddings are normalized; its roundoff must not make it indefinite.
        diagonal += weight[active][:, None] + 1e-15 * diagonal.sum(dim=1, keepdim=True)
        factor, _ = torch.linalg.cholesky_ex(gram)
        found = torch.cholesky_solve(rhs[active][..., None], factor)
        p, pulled = torch.zeros_like(rhs), torch.zeros_like(free)
        p[active], pulled[active] = found[..., 0], (J.mT @ found)[..., 0]
        return p, pulled


class Dense(Formed):
    """J formed in float64, by n products for each point."""

    def __init__(self, problem: Problem, z: torch.Tensor, which: torch.Tensor) -> None:
        super().__init__(torch.empty(len(z), problem.n, problem.m, dtype=torch.float64, device=z.device))
        self._problem = problem
        self.refresh(torch.arange(len(z), device=z.device), z, which)

    def refresh(self, rows: torch.Tensor, z: torch.Tensor, which: torch.Tensor) -> None:
        """Form J anew at ``rows``."""
        if not len(rows):
            return
        operator = self._problem.jacobian(z, which)
        self.J[rows] = finite(operator.dense()).to(torch.float64)
        self._problem.spent(which, min(operator.shape))

    def take(self, rows: torch.Tensor) -> Dense:
        """A copy of some rows; the model itself where these are all."""
        if len(rows) == len(self.J):
            return self
        part = object.__new__(Dense)
        part._problem, part.J = self._problem, self.J[rows]
        return part


class Products:
    """J by products alone; systems by conjugate gradients, all points in one pass."""

    exact = False

    def __init__(self, problem: Problem, z: torch.Tensor, which: torch.Tensor) -> None:
        self._problem = problem
        self._z, self._which = z.clone(), which.clone()
        self._operator = problem.jacobian(z, which)

    def refresh(self, rows: torch.Tensor, z: torch.Tensor, which: torch.Tensor) -> None:
        """Move points; all operators of the batch are made anew."""
        if not len(rows):
            return
        self._z[rows] = z
        self._operator = self._problem.jacobian(self._z, self._which)

    def take(self, rows: torch.Tensor) -> Products:
        """The model of some points, with a forward pass of its own."""
        if len(rows) == len(self._z):
            return self
        return Products(self._problem, self._z[rows], self._which[rows])

    def forward(self, d: torch.Tensor) -> torch.Tensor:
        """J d."""
        self._problem.spent(self._which, 1)
        shape = (1, len(d), *self._problem.shape)
        return finite(self._operator.jvp(d.reshape(shape))[0]).to(torch.float64)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """J^T y."""
        self._problem.spent(self._which, 1)
        return finite(self._operator.vjp(y[None])[0]).flatten(1).to(torch.float64)

    def solve(
        self, free: torch.Tensor, weight: torch.Tensor, rhs: torch.Tensor, active: torch.Tensor, tolerance: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """By conjugate gradients on the dual, from zero."""
        p = torch.zeros_like(rhs)
        adjoint = torch.zeros(len(rhs), self._problem.m, dtype=rhs.dtype, device=rhs.device)
        left = direction = rhs * active[:, None]
        square = left.square().sum(dim=1)
        goal = tolerance**2 * square
        for _ in range(min(MOST_CG, rhs.shape[1])):
            pulled = self.adjoint(direction)
            pushed = self.forward(free * pulled) + weight[:, None] * direction
            curvature = (direction * pushed).sum(dim=1)
            moving = (square > goal) & (curvature > 0)
            step = torch.where(moving, square / curvature.where(curvature > 0, 1.0), 0.0)[:, None]
            p, adjoint, left = p + step * direction, adjoint + step * pulled, left - step * pushed
            before, square = square, left.square().sum(dim=1)
            if not bool((moving & (square > goal)).any()):
                break
            direction = left + (square / before.where(before > 0, 1.0))[:, None] * direction
        return p, adjoint


def linearise(problem: Problem, z: torch.Tensor, which: torch.Tensor, mode: Mode) -> LinearModel:
    """The linear model at points z [k, m] of the pairs ``which`` [k]."""
    return (Dense if mode == "dense" else Products)(problem, z, which)
