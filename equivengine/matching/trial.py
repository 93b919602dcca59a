"""One trial step of a second-order solver: solve the linear model within bounds, look, correct for curvature, look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from equivengine.matching.region import project
from equivengine.matching.subproblem import Step, box_least_squares

if TYPE_CHECKING:
    from equivengine.matching.linear import LinearModel, System
    from equivengine.matching.problem import Problem

#: Relative residual of the subproblem: without formed Jacobians each digit costs products.
EXACT, INEXACT = 1e-8, 0.05
#: Newton steps of a subproblem that is solved by products.
FEW_NEWTON = 10
#: Bisections of the multiplier of an L2 budget, over this range of its logarithm (base 10).
BISECTIONS, DECADES = 24, (-6.0, 8.0)

Merit = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Trial:
    """Where a step would lead, for k points.

    Attributes:
        z: Points, [k, m]; within bounds, as f sees them.
        residual: f(z) - target, [k, n].
        merit: The merit function there, [k].
        predicted: The residual that the linear model foretold at z, [k, n].
    """

    z: torch.Tensor
    residual: torch.Tensor
    merit: torch.Tensor
    predicted: torch.Tensor


def attempt(
    problem: Problem,
    model: LinearModel,
    which: torch.Tensor,
    z: torch.Tensor,
    residual: torch.Tensor,
    anchor: torch.Tensor,
    weight: torch.Tensor,
    bounds: tuple[torch.Tensor, torch.Tensor],
    merit: Merit,
    l2: float | None = None,
) -> Trial:
    """The step that solves the linear model, corrected for curvature where that lowers the merit.

    The correction is of second order: the same model is solved once more with the residual that was foretold wrongly
    added, r + (f(z + d) - f(z) - J d). It is the step of a second-order correction in constrained optimization (Nocedal
    and Wright, Numerical Optimization, 2nd ed., section 15.6), akin to geodesic acceleration (Transtrum and Sethna,
    arXiv 1201.5885), and costs one forward pass.

    Args:
        problem: The problem.
        model: J at the points z.
        which: Pairs of the points, [k].
        z: Points [k, m].
        residual: f(z) - target, [k, n].
        anchor: What the next point is drawn to, [k, m].
        weight: Weight of |next - anchor|^2 / 2 against |J d + r|^2 / 2, [k].
        bounds: Smallest and largest value of each coordinate, [k, m] each.
        merit: Function of points and residuals, [k], to be lowered.
        l2: Largest distance from the original.
    """
    lower, upper = bounds
    origin = problem.origin[which]

    def moved(r: torch.Tensor) -> torch.Tensor:
        d = within(model, r, anchor - z, weight, lower - z, upper - z, origin - z, l2)
        return project(problem.rounded(torch.clamp(z + d, lower, upper)), origin, lower, upper, l2)

    def seen(point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        point = problem.rounded(point)
        found = problem.residual(point, which)
        value = merit(point, found)
        return point, found, torch.where(torch.isfinite(value), value, torch.inf)

    first, found, value = seen(moved(residual))
    foretold = residual + model.forward(first - z)
    if model.exact:
        bend = torch.where(torch.isfinite(found), found - foretold, 0.0)
        second, other, lower_value = seen(moved(residual + bend))
        better = lower_value < value
        first = torch.where(better[:, None], second, first)
        found = torch.where(better[:, None], other, found)
        foretold = torch.where(better[:, None], residual + model.forward(second - z), foretold)
        value = torch.where(better, lower_value, value)
    return Trial(first, found, value, foretold)


def within(
    model: System,
    residual: torch.Tensor,
    anchor: torch.Tensor,
    weight: torch.Tensor,
    lower: torch.Tensor,
    upper: torch.Tensor,
    centre: torch.Tensor,
    l2: float | None,
) -> torch.Tensor:
    """The step within bounds, and within the L2 ball around ``centre`` where there is one.

    A multiplier q of |d - center|^2 / 2 only moves the anchor and the weight: (anchor + q center) / (1 + q) and
    weight (1 + q). The length falls as q grows, so bisection finds the smallest that fits.
    """
    precise = {"tolerance": EXACT} if model.exact else {"tolerance": INEXACT, "most": FEW_NEWTON}

    def solved(q: torch.Tensor, start: torch.Tensor | None) -> Step:
        drawn = (anchor + q[:, None] * centre) / (1 + q)[:, None]
        return box_least_squares(
            model,
            residual,
            drawn,
            weight * (1 + q),
            lower,
            upper,
            start=start,
            **precise,  # type: ignore[arg-type]
        )

    step = solved(torch.zeros_like(weight), None)
    if l2 is None:
        return step.d
    far = torch.linalg.vector_norm(step.d - centre, dim=1) > l2
    if not bool(far.any()):
        return step.d
    low, high = (torch.full_like(weight, end) for end in DECADES)
    best = step.d
    for _ in range(BISECTIONS if model.exact else BISECTIONS // 3):
        middle = (low + high) / 2
        tried = solved(torch.where(far, 10.0**middle, 0.0), step.y)
        fits = torch.linalg.vector_norm(tried.d - centre, dim=1) <= l2
        best = torch.where((far & fits)[:, None], tried.d, best)
        low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
    return best
