"""Levenberg-Marquardt within a box: the nearest embedding that can be had, to roundoff where it can be reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from equivengine.errors import UsageError
from equivengine.linalg.directions import sign_directions
from equivengine.matching.goals import finite_start, goals
from equivengine.matching.linear import Dense, LinearModel, choose, linearise
from equivengine.matching.problem import Problem
from equivengine.matching.region import Region
from equivengine.matching.result import Matching, Recorder, Stop, roundoff
from equivengine.matching.trial import attempt

#: The first damping, over |J|_F^2 / n. Ten times the mean squared singular value: short first steps find nearer
#: matches, and get stuck less often.
FIRST_DAMPING = 10.0
#: Damping is multiplied where a step fails, barely succeeds, succeeds, and is foretold well (ratio of actual to
#: predicted decrease of the squared distance beyond `WELL`, `FAIR`).
FAILED, POOR, FAIR_FACTOR, GOOD = 4.0, 2.0, 0.3, 0.09
WELL, FAIR = 0.75, 0.25
#: Failed steps in a row after which a pair is given up: damping has then grown by 4^14, and steps are roundoff.
GIVE_UP = 14
#: The smallest damping, over |J|_F^2 / n: a step then is Gauss-Newton's, but for the kernel of J^T.
LEAST_DAMPING = 1e-13
#: Random cotangents from which |J|_F is estimated where J is not formed.
SAMPLES = 4


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
    has its own damping. The optimum is local: another start may come nearer.

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
    goal = goals(distance, problem)
    device = problem.origin.device
    lower, upper = region.bounds(problem.origin, problem.dtype)
    z = problem.origin if start is None else start.to(problem.origin).flatten(1)
    z = problem.rounded(region.project(z, problem.origin, problem.dtype))
    everything = torch.arange(len(problem), device=device)
    residual = problem.residual(z, everything)
    recorder = Recorder(problem)
    recorder.note(z, residual, everything)
    mode = choose(problem, jacobian)
    apart = torch.linalg.vector_norm(residual, dim=1)
    finite_start(apart)
    floor = roundoff(problem)
    stop: list[Stop] = ["reached"] * len(problem)
    jacobians = torch.zeros(len(problem), dtype=torch.int64)
    failures = torch.zeros(len(problem), dtype=torch.int64, device=device)

    open_ = apart > goal
    which = torch.nonzero(open_).flatten()
    damping = torch.zeros_like(apart)
    scale = torch.zeros_like(apart)
    if len(which):
        model = linearise(problem, z[which], which, mode)
        jacobians[which.cpu()] += 1
        scale[which] = mean_square(model, problem, which)
        damping[which] = FIRST_DAMPING * scale[which]
    while len(which):
        trial = attempt(
            problem,
            model,
            which,
            z[which],
            residual[which],
            z[which],
            damping[which],
            (lower[which], upper[which]),
            lambda _, r: torch.linalg.vector_norm(r, dim=1),
            region.l2,
        )
        before = apart[which]
        better = trial.merit < before
        foretold = torch.linalg.vector_norm(trial.predicted, dim=1)
        gain = (before.square() - trial.merit.square()) / (before.square() - foretold.square()).clamp_min(1e-300)
        factor = torch.where(gain > WELL, GOOD, torch.where(gain > FAIR, FAIR_FACTOR, POOR))
        damping[which] *= torch.where(better, factor, FAILED)
        damping[which] = torch.maximum(damping[which], LEAST_DAMPING * scale[which])
        failures[which] = torch.where(better, 0, failures[which] + 1)
        moved = which[better]
        z[moved], residual[moved], apart[moved] = trial.z[better], trial.residual[better], trial.merit[better]
        recorder.note(z[which], residual[which], which)

        keep = torch.ones(len(which), dtype=torch.bool, device=device)
        for place, pair in enumerate(which.tolist()):
            numbers = (float(each[pair]) for each in (apart, goal, floor))
            reason = _finished(*numbers, failures=int(failures[pair]), left=max_jacobians - int(jacobians[pair]))
            # With the last Jacobian a failed step may still be tried shorter, at no more than a forward pass each.
            if reason is not None and not (reason == "allowance" and not bool(better[place])):
                stop[pair], keep[place] = reason, False
        again = torch.nonzero(keep & better).flatten()
        jacobians[which[again].cpu()] += 1
        model.refresh(again, z[which[again]], which[again])
        if not bool(keep.all()):
            model = model.take(torch.nonzero(keep).flatten())
            which = which[keep]
    return Matching(
        x=z.to(problem.dtype).reshape(-1, *problem.shape),
        residual=residual,
        distance=apart,
        stop=tuple(stop),
        trace=recorder.trace(),
        cost=problem.cost(),
        jacobians=jacobians,
        optimality=torch.full_like(apart, torch.nan),
        solver="lm",
        details={"jacobian": mode, "precision": precision},
    )


def mean_square(model: LinearModel, problem: Problem, which: torch.Tensor) -> torch.Tensor:
    """|J|_F^2 / n, [k]: exact of a formed J, otherwise from a few products with random cotangents."""
    if isinstance(model, Dense):
        return model.J.square().sum(dim=(1, 2)) / problem.n
    total = torch.zeros(len(which), dtype=torch.float64, device=problem.origin.device)
    for draw in range(SAMPLES):
        signs = sign_directions(draw, 0, len(which), problem.n, device=problem.origin.device)
        total += model.adjoint(signs).square().sum(dim=1) / signs.square().sum(dim=1)
    return total / SAMPLES


def _finished(apart: float, goal: float, floor: float, *, failures: int, left: int) -> Stop | None:
    if apart <= goal:
        return "reached"
    if failures >= GIVE_UP:
        return "roundoff" if apart <= floor else "stalled"
    return None if left > 0 else "allowance"
