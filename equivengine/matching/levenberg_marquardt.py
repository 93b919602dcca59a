"""Levenberg-Marquardt within a box: the nearest embedding that can be had, to roundoff where it can be reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from equivengine.errors import UsageError
from equivengine.matching.descend import begin, descend
from equivengine.matching.goals import goals
from equivengine.matching.linear import SMALL_N, choose, formable
from equivengine.matching.problem import Problem
from equivengine.matching.quasi_newton import approach
from equivengine.matching.region import Region
from equivengine.matching.restart import restart
from equivengine.matching.result import Matching
from equivengine.matching.stationary import reducible


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

    Each step minimizes |J d + r|^2 + damping |d|^2 subject to the bounds of the region (`subproblem`), is corrected for
    curvature, and is taken if the distance falls (Levenberg, 1944; Marquardt, 1963). All pairs share passes; each
    has its own damping. Where J takes more than `SMALL_N` products it is learned on the way first, and formed once that
    brings too little (`quasi_newton`). A pair that gets stuck begins again elsewhere (`restart`), unless ``start`` was
    given; ``details["restarted"]`` names it. The optimum is local: another start may come nearer.

    Args:
        f: An encoder, or any callable [B, *input_shape] -> [B, n].
        x: Originals, [B, *input_shape].
        target: Target embeddings, [B, n].
        distance: Stop at |f(z) - target| of this or less; one number, or one for each pair, [B].
        region: Where inputs may lie; the box [0, 1] when None.
        start: Where to begin, [B, *input_shape]; at the originals when None.
        precision: ``"fp32"`` or ``"fp64"``.
        max_jacobians: Points at which the model may be linearized, for each pair.
        jacobian: ``"dense"`` forms J (n products a step), ``"products"`` never does and solves by conjugate gradients,
            ``"auto"`` takes what is cheaper.

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
    if problem.n > SMALL_N and max_jacobians > 1:
        forms = jacobian != "products" and formable(problem)
        # One is kept for what follows.
        most = torch.full_like(state.jacobians, max_jacobians - 1)
        approach(problem, state, goal, bounds, most, region.l2, forms=forms)
    left = max_jacobians - state.jacobians
    descend(problem, state, goal, bounds, mode, left, region.l2, patient=start is not None)
    restarted: list[int] = []
    if start is None:
        stuck = torch.tensor([why == "stalled" for why in state.stop])
        restarted = restart(
            problem, state, torch.nonzero(stuck).flatten().to(goal.device), goal, region, mode, max_jacobians
        ).tolist()
        # With what is left, patiently, from where each of them is nearest.
        stuck = torch.tensor([why == "stalled" for why in state.stop]) & (state.jacobians < max_jacobians)
        if bool(stuck.any()):
            aside = torch.where(stuck.to(goal.device), goal, torch.inf)
            before = list(state.stop)
            descend(problem, state, aside, bounds, mode, int((max_jacobians - state.jacobians)[stuck].min()), region.l2)
            state.stop = [
                new if mine else old for new, old, mine in zip(state.stop, before, stuck.tolist(), strict=True)
            ]
    return state.matching(
        problem, "lm", mode, reducible=reducible(problem, state, goal, bounds, mode), restarted=restarted
    )
