"""Levenberg-Marquardt within a box: the nearest embedding that can be had, to roundoff where it can be reached."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

from equivengine.errors import UsageError
from equivengine.matching.descend import State, begin, descend
from equivengine.matching.goals import goals
from equivengine.matching.linear import Mode, choose
from equivengine.matching.problem import Problem
from equivengine.matching.region import Region
from equivengine.matching.result import Matching
from equivengine.matching.smallest_l2 import smallest_l2

#: Linearisations that are kept back for the last steps after a continuation.
LAST = 10
#: How near a continuation brings a pair before these steps, over its distance at the start.
NEAR = 1e-2


def levenberg_marquardt(
    f: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    target: torch.Tensor,
    *,
    distance: float | torch.Tensor,
    region: Region | None = None,
    start: torch.Tensor | None = None,
    precision: str = "fp32",
    max_jacobians: int = 60,
    jacobian: Literal["auto", "dense", "products"] = "auto",
) -> Matching:
    """Find inputs within a region whose embeddings are as near to targets as they can be had.

    Each step minimises |J d + r|^2 + damping |d|^2 subject to the bounds of the region (`subproblem`), is corrected for
    curvature, and is taken if the distance falls (Levenberg, 1944; Marquardt, 1963). All pairs share passes; each
    has its own damping. A pair that gets stuck begins again at its original, by the continuation of `smallest_l2`, or,
    without a box, within the range of the originals; ``details["continued"]`` names it. The optimum is local: another
    start may come nearer.

    Args:
        f: An encoder, or any callable [B, *input_shape] -> [B, n].
        x: Originals, [B, *input_shape].
        target: Target embeddings, [B, n].
        distance: Stop at |f(z) - target| of this or less; one number, or one for each pair, [B].
        region: Where inputs may lie; the box [0, 1] when None.
        start: Where to begin, [B, *input_shape]; at the originals when None.
        precision: ``"fp32"`` or ``"fp64"``.
        max_jacobians: Points at which the model may be linearised, for each pair.
        jacobian: ``"dense"`` forms J (n products a step), ``"products"`` solves by conjugate gradients, ``"auto"``
            takes what is cheaper.

    Raises:
        UsageError: If an argument makes no sense.
        ModelError: If f cannot be evaluated or differentiated.
        NumericsError: If a target, the embedding of a start or a derivative is not finite.
    """
    problem = Problem(f, x, target, precision)
    region = region or Region()
    if max_jacobians < 1:
        raise UsageError("max_jacobians must be at least 1", got=max_jacobians)
    bounds = region.bounds(problem.origin, problem.dtype)
    z = problem.origin if start is None else start.to(problem.origin).flatten(1)
    state = begin(problem, region.project(z, problem.origin, problem.dtype))
    mode = choose(problem, jacobian)
    goal = goals(distance, problem)
    descend(problem, state, goal, bounds, mode, max_jacobians, region.l2, patient=start is not None)
    continued: list[int] = []
    if start is None:
        left = max_jacobians - state.jacobians
        stuck = torch.tensor([why == "stalled" for why in state.stop]) & (left > 0)
        which = torch.nonzero(stuck & (left > 2 * LAST)).flatten()
        if len(which):
            continued = which.tolist()
            _continue(problem, state, which, f, x, target, goal, region, mode, int(left[which].min()) - LAST)
        if bool(stuck.any()):
            aside = torch.where(stuck.to(goal.device), goal, torch.inf)
            most = int((max_jacobians - state.jacobians)[stuck].min())
            before = list(state.stop)
            descend(problem, state, aside, bounds, mode, max(most, 1), region.l2)
            state.stop = [
                new if mine else old for new, old, mine in zip(state.stop, before, stuck.tolist(), strict=True)
            ]
    return state.matching(problem, "lm", mode, continued=continued)


def _continue(
    problem: Problem,
    state: State,
    which: torch.Tensor,
    f: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    target: torch.Tensor,
    goal: torch.Tensor,
    region: Region,
    mode: Mode,
    most: int,
) -> None:
    """Bring pairs ``which`` near their targets on another way, from their originals; keeps what is nearer.

    Within a box by `smallest_l2`, which bends less. Without one, within the range of the originals: far outside of it
    models tend to saturate, and steps get lost there.
    """
    device = state.z.device
    at = which.to(device)
    if math.isinf(region.low) or math.isinf(region.high):
        own = Region(float(x.min()), float(x.max()), l2=region.l2, linf=region.linf)
        found = levenberg_marquardt(
            f,
            x[at],
            target[at],
            distance=goal[at],
            region=own,
            precision=problem.precision,
            max_jacobians=most,
            jacobian=mode,
        )
    else:
        found = smallest_l2(
            f,
            x[at],
            target[at],
            distance=torch.maximum(goal[at], NEAR * state.recorder.first_distance()[at]),
            region=region,
            precision=problem.precision,
            max_jacobians=most,
            jacobian=mode,
            polish=False,
        )
    state.jacobians[which] += found.jacobians
    problem.add(found.cost, which)
    nearer = found.distance < state.apart[at]
    if region.l2 is not None:
        nearer &= torch.linalg.vector_norm((found.x - x[at]).flatten(1), dim=1) <= region.l2
    won = at[nearer]
    state.z[won] = found.x.flatten(1).to(state.z)[nearer]
    state.residual[won], state.apart[won] = found.residual[nearer], found.distance[nearer]
    state.recorder.note(state.z[at], state.residual[at], at)
