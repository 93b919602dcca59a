"""Walks within one equivalence class: along the null space of J, and back onto f(z) = f(x), step by step.

This is a predictor-corrector method on the level set of f (Allgower and Georg, Numerical Continuation Methods, 1990;
gradient projection with restoration: Rosen, SIAM J. Appl. Math. 9, 1961), within a region. A step (`stepper`) counts
only if also the straight segment that leads to it stays near the class, so that a walk is a connected path of inputs
that share an embedding within a tolerance, not a row of islands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from equivengine.errors import UsageError
from equivengine.jacobian.function import applied, at_precision, explained
from equivengine.matching.goals import goals
from equivengine.matching.linear import DENSE_BYTES, Mode, linearise
from equivengine.matching.problem import Cost, Problem
from equivengine.matching.region import Region
from equivengine.matching.stepper import WANTED, Stepper
from equivengine.ops.precision import DTYPES, ieee_float32

#: Why a walk ended: all steps made; nothing is left of the way; no step that is tried gains anything.
End = Literal["steps", "arrived", "stalled"]
#: A walk has stalled when so many steps together gain less than this share of what was gained in all.
WINDOW, GAIN = 4, 1e-3
#: A goal is arrived at when this share of the way is left.
ARRIVED = 1e-3
#: By how much a wanted length may change from one step to the next.
SHORTEST, LONGEST = 0.5, 2.0


@dataclass(frozen=True)
class Walk:
    """Walks of B inputs, of at most K steps. After the end of a walk its point is repeated; its steps are NaN or 0.

    Attributes:
        points: Points, [K + 1, B, *input_shape], in the run's precision; row 0 is the start.
        distance: |f(z) - target| at each, [K + 1, B], float64.
        between: Largest |f - target| seen inside the segment of each step, at `INSIDE` of its length, [K, B].
        progress: How far each point is along the wanted way, input units, [K + 1, B]: <z - x, u> for a unit direction
            u, |x - goal| - |z - goal| towards a goal.
        wanted: Length of the wanted step, [K, B], input units.
        length: Length of the step made, [K, B].
        steps: Steps made, [B].
        end: Why each walk ended.
        cost: What was spent.
        jacobians: Points at which J was formed or a matrix-free model was made, [B].
        mode: How J was used, ``"dense"`` or ``"products"``.
    """

    points: torch.Tensor
    distance: torch.Tensor
    between: torch.Tensor
    progress: torch.Tensor
    wanted: torch.Tensor
    length: torch.Tensor
    steps: torch.Tensor
    end: tuple[End, ...]
    cost: Cost
    jacobians: torch.Tensor
    mode: str


def null_walk(
    f: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    *,
    distance: float | torch.Tensor,
    direction: torch.Tensor | None = None,
    towards: torch.Tensor | None = None,
    target: torch.Tensor | None = None,
    region: Region | None = None,
    step: float | None = None,
    steps: int = 20,
    precision: str = "fp32",
    jacobian: Literal["auto", "dense", "products"] = "auto",
) -> Walk:
    """Walk from inputs within their equivalence classes, along a direction or towards other inputs.

    Each step wants to go along the same direction, or straight to the goal, and gets as near to that as the null space
    of J and the region allow. Step lengths follow the largest |f - target| on the segments. All walks share passes.

    Args:
        f: An encoder, or any callable [B, *input_shape] -> [B, n].
        x: Starts, [B, *input_shape].
        distance: |f(z) - target| that no point and no segment may exceed; one number, or one for each walk, [B].
        direction: Where to go, [B, *input_shape], of any length. Coordinates at a bound that it points out of stay.
        towards: Where to go instead, [B, *input_shape]; for each walk the direction to its goal is taken anew at each
            step.
        target: Embeddings to stay at, [B, n]; f(x) when None.
        region: Where inputs may lie; the box [0, 1] when None.
        step: Length of the first wanted step, input units; sqrt(m) / 30 when None, a thirtieth of the box in the rms.
        steps: Steps at most.
        precision: ``"fp32"`` or ``"fp64"``.
        jacobian: ``"dense"`` forms J (n products a step), ``"products"`` solves by conjugate gradients, ``"auto"``
            forms J where that takes at most 2 GiB for one input: a projection needs many more digits than a step of
            `levenberg_marquardt` does, so that products alone cost tens of times n.

    Raises:
        UsageError: If an argument makes no sense, or a start is not within ``distance`` of its target.
        ModelError: If f cannot be evaluated or differentiated.
        NumericsError: If an embedding of a start or a derivative is not finite.
    """
    _check(x, direction, towards, step, steps)
    problem = Problem(f, x, _embedding(f, x, precision) if target is None else target, precision)
    stepper = Stepper(problem, goals(distance, problem), direction, towards, region or Region())
    mode: Mode = _mode(problem) if jacobian == "auto" else jacobian
    return _walk(stepper, mode, steps, problem.m**0.5 / 30 if step is None else step)


def _walk(stepper: Stepper, mode: Mode, steps: int, first: float) -> Walk:
    problem, device = stepper.problem, stepper.z.device
    which = torch.arange(len(problem), device=device)
    length = torch.full((len(problem),), first, dtype=torch.float64, device=device)
    end: list[End] = ["steps"] * len(problem)
    made, jacobians = (torch.zeros(len(problem), dtype=torch.int64) for _ in range(2))
    points, distance, progress = [stepper.z], [stepper.apart()], [torch.zeros_like(length)]
    between: list[torch.Tensor] = []
    wanted: list[torch.Tensor] = []
    model = linearise(problem, stepper.z, which, mode)
    while True:
        jacobians[which.cpu()] += 1
        moved, inside, tried = stepper.advance(model, which, length[which])
        made[which[moved].cpu()] += 1
        for rows, values in ((between, inside), (wanted, torch.where(moved, tried, torch.nan))):
            rows.append(torch.full_like(length, torch.nan).index_copy(0, which, values))
        points.append(stepper.z)
        distance.append(stepper.apart())
        progress.append(stepper.progress(stepper.z, torch.arange(len(problem), device=device)))
        factor = (WANTED * stepper.tolerance[which] / inside).sqrt().nan_to_num(nan=1.0)
        length[which] = tried * factor.clamp(SHORTEST, LONGEST)

        keep = moved.clone()
        for place, walk in enumerate(which.tolist()):
            reason = _over(bool(moved[place]), [float(row[walk]) for row in progress], stepper.way(walk))
            if reason is not None:
                end[walk], keep[place] = reason, False
        if len(between) == steps or not bool(keep.any()):
            break
        which, model = which[keep], model.take(torch.nonzero(keep).flatten())
        model.refresh(torch.arange(len(which), device=device), stepper.z[which], which)
    path = torch.stack(points)
    return Walk(
        points=path.to(problem.dtype).reshape(-1, len(problem), *problem.shape),
        distance=torch.stack(distance),
        between=torch.stack(between),
        progress=torch.stack(progress),
        wanted=torch.stack(wanted),
        length=torch.linalg.vector_norm(path.diff(dim=0), dim=2),
        steps=made,
        end=tuple(end),
        cost=problem.cost(),
        jacobians=jacobians,
        mode=mode,
    )


def _over(moved: bool, progress: list[float], way: float | None) -> End | None:
    """Whether a walk has ended, from its progress at each point, and the length of its way if it has a goal."""
    if not moved:
        return "stalled"
    if way is not None and progress[-1] >= (1 - ARRIVED) * way:
        return "arrived"
    short = len(progress) > WINDOW and progress[-1] - progress[-1 - WINDOW] <= GAIN * progress[-1]
    return "stalled" if short else None


def _mode(problem: Problem) -> Mode:
    return "dense" if 8 * problem.n * problem.m <= DENSE_BYTES // 2 else "products"


def _embedding(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, precision: str) -> torch.Tensor:
    """f(x), [B, n]."""
    with torch.no_grad(), ieee_float32(), explained("forward"):
        return applied(at_precision(f, precision), True, x.detach().to(DTYPES[precision]).clone())


def _check(
    x: torch.Tensor, direction: torch.Tensor | None, towards: torch.Tensor | None, step: float | None, steps: int
) -> None:
    if (direction is None) == (towards is None):
        raise UsageError("a walk needs a direction or a goal", expected="direction or towards, not both")
    name, heading = ("direction", direction) if direction is not None else ("towards", towards)
    assert heading is not None
    if heading.shape != x.shape:
        raise UsageError(f"{name} is of another shape than the starts", expected=list(x.shape), got=list(heading.shape))
    if not bool(torch.isfinite(heading).all()):
        raise UsageError(f"{name} holds NaN or infinity", expected="finite values")
    still = (heading if direction is not None else heading - x).flatten(1).abs().amax(dim=1) == 0
    if bool(still.any()):
        raise UsageError(
            "a walk has nowhere to go",
            expected="a direction that is not zero, or a goal that is not the start",
            got=f"walk {int(torch.nonzero(still)[0])}",
        )
    if steps < 1:
        raise UsageError("steps must be at least 1", got=steps)
    if step is not None and not 0 < step < float("inf"):
        raise UsageError("the first step must be positive and finite", got=step)
