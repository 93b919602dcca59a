"""The smallest L-infinity change of an input that brings its embedding within a distance of a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from equivengine.errors import UsageError
from equivengine.matching.descend import State, descend
from equivengine.matching.goals import goals
from equivengine.matching.linear import LinearModel, linearise
from equivengine.matching.problem import Problem
from equivengine.matching.region import Region, inward
from equivengine.matching.result import Matching
from equivengine.matching.smallest_l2 import Continuation
from equivengine.matching.stationary import reducible
from equivengine.matching.subproblem import box_least_squares

#: Share of what the linear model says can be saved that the next radius tries to save; it grows and falls with success.
FIRST_SHARE, MORE, LESS, LEAST_SHARE, MOST_SHARE = 0.7, 1.3, 0.4, 0.04, 0.95
#: Linearizations of one try at a radius.
TRY = 8
#: Share of the linearizations that may go into the first match. Most pairs take less; those whose first way leads
#: nowhere need it, and a match that is not flattened to the end is better than none.
FIRST_MATCH = 0.75
#: Relative accuracy: the search ends where the linear model says that no more than this can be saved.
ACCURACY = 0.02
#: Bisections of the radius of a linear model.
BISECTIONS = 9
#: Share of the goal that the small weight of |d|^2 in these problems may cost: if some d of length L reaches a residual
#: p, the regularized solution reaches sqrt(p^2 + w L^2).
BLUR = 0.2
#: The linear model must come this much nearer than the goal, since the next Jacobian differs.
SLACK = 0.9


def smallest_linf(
    f: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    target: torch.Tensor,
    *,
    distance: float | torch.Tensor,
    region: Region | None = None,
    precision: str = "fp32",
    max_jacobians: int = 120,
    jacobian: Literal["auto", "dense"] = "auto",
) -> Matching:
    """Minimize max |z - x| subject to |f(z) - target| <= distance and the bounds of a region.

    Sequential linear programming by level sets, from the smallest L2 change on: the smallest radius at which the linear
    model at z meets the goal is the optimum of a linear programme (min t, |J d + r| <= goal, |z + d - x| <= t, bounds).
    It is the root of the residual as a function of t, which is convex and falling (van den Berg and Friedlander, SIAM
    J. Sci. Comput. 31, 2008), and each evaluation is a box-constrained least-squares problem. The radius then shrinks
    towards it, f being brought back within the goal by Levenberg-Marquardt. The minimum is local.

    ``optimality`` of the result is 1 - (smallest radius of the linear model there) / (its radius): what a further step
    could save by the linear model; 0 at a minimum.

    Args:
        f: An encoder, or any callable [B, *input_shape] -> [B, n].
        x: Originals, [B, *input_shape].
        target: Target embeddings, [B, n].
        distance: Largest |f(z) - target|, positive; one number, or one for each pair, [B].
        region: Where inputs may lie; the box [0, 1] when None.
        precision: ``"fp32"`` or ``"fp64"``.
        max_jacobians: Points at which the model may be linearized, for each pair. Three quarters of them may go into
            the first match.
        jacobian: J is formed always.

    Raises:
        UsageError: If an argument makes no sense.
        ModelError: If f cannot be evaluated or differentiated.
        NumericsError: If a target, the embedding of an original or a derivative is not finite.
    """
    problem = Problem(f, x, target, precision)
    region = region or Region()
    if max_jacobians < 2:
        raise UsageError("max_jacobians must be at least 2", got=max_jacobians)
    if jacobian not in ("auto", "dense"):
        raise UsageError(
            "the smallest L-infinity change needs a formed Jacobian", expected="auto or dense", got=jacobian
        )
    goal = goals(distance, problem)
    if not bool((goal > 0).all()):
        raise UsageError(
            "the smallest change needs a positive distance", got=float(goal.min()), hint="1e-3 of the embeddings' own"
        )
    outer = region.bounds(problem.origin, problem.dtype)
    # From the smallest L2 change, not from just any match: those lie in other, worse valleys.
    first = Continuation(problem, goal, outer)
    first.search(region, "dense", (max_jacobians // 2, max(1, int(FIRST_MATCH * max_jacobians))))
    z, residual = first.best()
    apart = torch.linalg.vector_norm(residual, dim=1)
    stop = list(first.stop)
    state = State(z, residual, apart, first.jacobians, stop, first.recorder)
    optimality = torch.full_like(state.apart, torch.nan)
    radius = (state.z - problem.origin).abs().amax(dim=1)
    optimality[radius == 0] = 0.0
    share = torch.full_like(radius, FIRST_SHARE)
    which = torch.nonzero((state.apart <= goal) & (radius > 0)).flatten()
    while len(which):
        model = linearise(problem, state.z[which], which, "dense")
        state.jacobians[which.cpu()] += 1
        least = linear_radius(problem, model, state, which, goal[which] * SLACK, outer, radius[which])
        optimality[which] = 1 - least / radius[which]
        # A try takes one Jacobian at least, and judging what it found another.
        left = state.jacobians.to(which.device)[which] < max_jacobians - 1
        on = (optimality[which] > ACCURACY) & (share[which] > LEAST_SHARE) & left
        which, least = which[on], least[on]
        if not len(which):
            break
        tried = radius.clone()
        tried[which] -= share[which] * (radius[which] - least)
        # Pairs that take no part have met their goals: `descend` leaves them alone.
        before = State(
            state.z.clone(), state.residual.clone(), state.apart.clone(), state.jacobians, stop, state.recorder
        )
        bounds = _around(problem, outer, tried)
        inside = torch.clamp(state.z[which], bounds[0][which], bounds[1][which])
        state.z[which] = problem.rounded(inside)
        state.residual[which] = problem.residual(state.z[which], which)
        state.apart[which] = torch.linalg.vector_norm(state.residual[which], dim=1)
        goal_here = torch.where(torch.isin(torch.arange(len(problem), device=goal.device), which), goal, torch.inf)
        most = (max_jacobians - 1 - state.jacobians).clamp(1, TRY)
        descend(problem, state, goal_here, bounds, "dense", most, region.l2)
        won = state.apart[which] <= goal[which]
        lost = which[~won]
        state.z[lost], state.residual[lost], state.apart[lost] = (
            each[lost] for each in (before.z, before.residual, before.apart)
        )
        share[which] = torch.where(won, (share[which] * MORE).clamp_max(MOST_SHARE), share[which] * LESS)
        radius = (state.z - problem.origin).abs().amax(dim=1)
    state.stop = stop
    if region.l2 is not None:
        beyond = torch.linalg.vector_norm(state.z - problem.origin, dim=1) > region.l2
        state.stop = ["stalled" if far else why for far, why in zip(beyond.tolist(), stop, strict=True)]
    return state.matching(
        problem, "smallest_linf", "dense", optimality, reducible(problem, state, goal, outer, "dense")
    )


def linear_radius(
    problem: Problem,
    model: LinearModel,
    state: State,
    which: torch.Tensor,
    goal: torch.Tensor,
    outer: tuple[torch.Tensor, torch.Tensor],
    radius: torch.Tensor,
) -> torch.Tensor:
    """The smallest radius at which the linear model meets the goal, [k]; at most ``radius``."""
    z, r, origin = state.z[which], state.residual[which], problem.origin[which]
    weight = (BLUR * goal / (radius * problem.m**0.5)).square()
    low, high = torch.zeros_like(radius), radius.clone()
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        lower = torch.maximum(outer[0][which], origin - middle[:, None])
        upper = torch.minimum(outer[1][which], origin + middle[:, None])
        step = box_least_squares(model, r, origin - z, weight, lower - z, upper - z, tolerance=1e-4)
        meets = torch.linalg.vector_norm(r + model.forward(step.d), dim=1) <= goal
        low, high = torch.where(meets, low, middle), torch.where(meets, middle, high)
    return high


def _around(
    problem: Problem, outer: tuple[torch.Tensor, torch.Tensor], radius: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds ``outer``, cut by a box of ``radius`` [B] around each original."""
    lower = torch.maximum(outer[0], problem.origin - radius[:, None])
    upper = torch.minimum(outer[1], problem.origin + radius[:, None])
    return inward(lower, upper, problem.dtype)
