"""The step that all second-order solvers share: box-constrained, regularized linear least squares.

    minimize  1/2 |d - a|^2 + 1 / (2 w) |J d + r|^2    subject to  lower <= d <= upper

with J [n, m], n << m. Its dual has n unknowns y and no constraints: d(y) = clip(a - J^T y), and y minimizes the convex,
piecewise quadratic

    phi(y) = w/2 |y|^2 - r . y - min over d of (1/2 |d - a|^2 + y . J d),    grad phi = w y - r - J d(y).

A Newton step on phi solves (w I + J F J^T) p = -grad phi, F picking the coordinates of d(y) that touch no bound: the
semismooth Newton method (Qi and Sun, 1993; for this dual, Li, Sun and Toh, SIAM J. Optim. 28, 2018), which ends after
finitely many steps. Along p the value of phi needs J^T y and J^T p alone, so searching a step length costs no product.

From y = 0 that takes a handful of steps while w is not small. Where the box holds no solution of J d = -r, y grows as
1 / w while ever fewer coordinates are free, J F J^T is close to singular, and steps are cut short: hundreds would be
needed. There the weight is lowered by and by from where the problem is easy, each solution leading to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from equivengine.matching.linear import Formed

if TYPE_CHECKING:
    from equivengine.matching.linear import System

#: Newton steps at one weight; each ends sooner once the tolerance is met.
MOST_NEWTON = 100
#: Newton steps that are tried straight away at the weight that was asked for.
AT_ONCE = 12
#: Otherwise: the first weight, over |J|_F^2 / n, the factor to the next, and the tolerance on the way.
FIRST_WEIGHT, NEXT, ON_THE_WAY = 1e-3, 0.1, 1e-3
#: A gap that no longer falls below this is roundoff.
ROUNDOFF = 1e-6
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
        most: Newton steps at most, at one weight.

    Returns:
        The step. ``gap`` says where ``most`` steps were too few.
    """
    everything = torch.ones(len(residual), dtype=torch.bool, device=residual.device)
    y = torch.zeros_like(residual) if start is None else start
    given = (model, residual, anchor, lower, upper)
    if not isinstance(model, Formed):
        return _newton(*given, weight, y, everything, tolerance, most)
    step = _newton(*given, weight, y, everything, tolerance, min(most, AT_ONCE))
    hard = step.gap > max(tolerance, ROUNDOFF)
    if most <= AT_ONCE or not bool(hard.any()):
        return step
    easy = torch.maximum(weight, FIRST_WEIGHT * model.J.square().sum(dim=(1, 2)) / residual.shape[1])
    here, made = torch.where(hard, easy, weight), step.newton
    step = Step(step.d, torch.where(hard[:, None], 0.0, step.y), step.gap, made)
    while True:
        last = here <= weight
        wanted = torch.where(last, tolerance, ON_THE_WAY).clamp_min(tolerance)
        step = _newton(*given, here, step.y, hard, wanted, most)
        made += step.newton
        if bool(last.all()):
            return Step(step.d, step.y, step.gap, made)
        below = torch.maximum(weight, NEXT * here)
        # y stays where J d = -r can be met, and grows as 1 / w where it cannot: the better of all in between.
        longer, pulled = (here / below - 1)[:, None], model.adjoint(step.y)
        t = _length(longer * step.y, longer * pulled, step.y, pulled, residual, anchor, below, lower, upper)
        step = Step(step.d, (1 + t[:, None] * longer) * step.y, step.gap, made)
        here = below


def _newton(
    model: System,
    residual: torch.Tensor,
    anchor: torch.Tensor,
    lower: torch.Tensor,
    upper: torch.Tensor,
    weight: torch.Tensor,
    y: torch.Tensor,
    which: torch.Tensor,
    tolerance: float | torch.Tensor,
    most: int,
) -> Step:
    """Newton steps from y at one weight, of the points ``which`` [k], bool; the others stay."""
    pulled = model.adjoint(y) if bool(y.any()) else torch.zeros_like(anchor)
    size = torch.linalg.vector_norm(residual, dim=1).clamp_min(torch.finfo(residual.dtype).tiny)

    def slope_at(y: torch.Tensor, pulled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        d = torch.clamp(anchor - pulled, lower, upper)
        return d, weight[:, None] * y - residual - model.forward(d)

    d, slope = slope_at(y, pulled)
    gap = torch.linalg.vector_norm(slope, dim=1) / size
    made = 0
    for _ in range(most):
        open_ = which & (gap > tolerance)
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
        if model.exact and bool((gap[open_] >= before[open_]).all()) and float(gap[open_].max()) < ROUNDOFF:
            break
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
    """The t in [0, 1] that minimizes phi(y + t p), [k].

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
