"""The step that all second-order solvers share: box-constrained, regularised linear least squares.

    minimise  1/2 |d - a|^2 + 1 / (2 w) |J d + r|^2    subject to  lower <= d <= upper

with J [n, m], n << m. Its dual has n unknowns y and no constraints: d(y) = clip(a - J^T y), and y minimises the convex,
piecewise quadratic

    phi(y) = w/2 |y|^2 - r . y - min over d of (1/2 |d - a|^2 + y . J d),    grad phi = w y - r - J d(y).

A Newton step on phi solves (w I + J F J^T) p = -grad phi, F picking the coordinates of d(y) that touch no bound: the
semismooth Newton method (Qi and Sun, 1993; for this dual, Li, Sun and Toh, SIAM J. Optim. 28, 2018), which ends after
finitely many steps. Along p the value of phi needs J^T y and J^T p alone, so searching a step length costs no product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from equivengine.matching.linear import System

#: Newton steps; each ends sooner once the tolerance is met.
MOST_NEWTON = 100
#: Bisections of a step length.
HALVINGS = 30
#: Relative residual of a Newton step that is solved by conjugate gradients.
INEXACT = 0.3


@dataclass(frozen=True)
class Step:
    """A solution for each of k points.

    Attributes:
        d: The step, [k, m]; within its bounds.
        y: Dual variables, [k, n]: (J d + r) / weight at the solution.
        gap: |grad phi| over |r|, [k]: how far from solved.
        newton: Newton steps that the slowest took.
    """

    d: torch.Tensor
    y: torch.Tensor
    gap: torch.Tensor
    newton: int


def box_least_squares(
    model: System,
    residual: torch.Tensor,
    anchor: torch.Tensor,
    weight: torch.Tensor,
    lower: torch.Tensor,
    upper: torch.Tensor,
    *,
    tolerance: float = 1e-10,
    start: torch.Tensor | None = None,
    most: int = MOST_NEWTON,
) -> Step:
    """Solve the problem of this module for k points at once.

    Args:
        model: J at each point.
        residual: r, [k, n].
        anchor: a, [k, m].
        weight: w > 0, [k].
        lower: Smallest values of d, [k, m].
        upper: Largest values.
        tolerance: Stop where |grad phi| <= tolerance |r|.
        start: Dual variables to begin with, [k, n]; zero when None.
        most: Newton steps at most.

    Returns:
        The step. ``gap`` says where ``most`` steps were too few.
    """
    y = torch.zeros_like(residual) if start is None else start
    pulled = torch.zeros_like(anchor) if start is None else model.adjoint(y)
    size = torch.linalg.vector_norm(residual, dim=1).clamp_min(torch.finfo(residual.dtype).tiny)

    def slope_at(y: torch.Tensor, pulled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        d = torch.clamp(anchor - pulled, lower, upper)
        return d, weight[:, None] * y - residual - model.forward(d)

    d, slope = slope_at(y, pulled)
    gap = torch.linalg.vector_norm(slope, dim=1) / size
    made = 0
    for _ in range(most):
        open_ = gap > tolerance
        if not bool(open_.any()):
            break
        made += 1
        inside = anchor - pulled
        free = ((inside > lower) & (inside < upper)).to(residual.dtype)
        p, along = model.solve(free, weight, -slope, open_, INEXACT)
        t = _length(p, along, y, pulled, residual, anchor, weight, lower, upper)
        y, pulled = y + t[:, None] * p, pulled + t[:, None] * along
        d, slope = slope_at(y, pulled)
        before, gap = gap, torch.linalg.vector_norm(slope, dim=1) / size
        if model.exact and bool((gap[open_] >= before[open_]).all()) and float(gap.max()) < 1e-6:
            break  # roundoff
    return Step(d, y, gap, made)


def _length(
    p: torch.Tensor,
    along: torch.Tensor,
    y: torch.Tensor,
    pulled: torch.Tensor,
    residual: torch.Tensor,
    anchor: torch.Tensor,
    weight: torch.Tensor,
    lower: torch.Tensor,
    upper: torch.Tensor,
) -> torch.Tensor:
    """The t in [0, 1] that minimises phi(y + t p), [k].

    phi'(t) = w p . (y + t p) - r . p - d(t) . J^T p rises with t, so where phi'(1) > 0 bisection finds its root. Merely
    sufficient decrease would not do: with few free coordinates Newton steps are far too long, and progress is slow.
    """
    linear = weight * (p * y).sum(dim=1) - (residual * p).sum(dim=1)
    bend = weight * p.square().sum(dim=1)

    def rise(t: torch.Tensor) -> torch.Tensor:
        d = torch.clamp(anchor - pulled - t[:, None] * along, lower, upper)
        return linear + t * bend - (d * along).sum(dim=1)

    one = torch.ones_like(weight)
    beyond = rise(one) > 0
    if not bool(beyond.any()):
        return one
    low, high = torch.zeros_like(weight), one
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        up = rise(middle) > 0
        low, high = torch.where(up, low, middle), torch.where(up, middle, high)
    return torch.where(beyond, (low + high) / 2, one)
