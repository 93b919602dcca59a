"""The paper's procedure: plain gradient descent on Eq. 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from equivengine.errors import UsageError
from equivengine.jacobian.function import applied, at_precision, explained
from equivengine.matching.goals import finite_start, goals
from equivengine.matching.problem import Problem
from equivengine.matching.region import Region
from equivengine.matching.result import Matching, Recorder, Stop
from equivengine.ops.precision import ieee_float32

#: A pair whose distance has grown by this factor, or is not finite, has diverged.
DIVERGED = 1e3


def gradient_descent(
    f: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    target: torch.Tensor,
    *,
    distance: float | torch.Tensor,
    rate: float | torch.Tensor,
    steps: int = 3000,
    cosine: float | None = None,
    loss: Literal["sum", "mean"] = "sum",
    region: Region | None = None,
    start: torch.Tensor | None = None,
    precision: str = "fp32",
) -> Matching:
    """Descend along J^T (f(z) - target), Eq. 4 of the paper, at a fixed learning rate, without momentum.

    Args:
        f: An encoder, or any callable [B, *input_shape] -> [B, n].
        x: Originals, [B, *input_shape].
        target: Target embeddings, [B, n].
        distance: Stop at |f(z) - target| of this or less; one number, or one for each pair, [B]. (The authors' code
            compares the squared distance with a threshold.)
        rate: Learning rate, one or one for each pair, [B]; input units squared over embedding units squared.
        steps: Steps at most.
        cosine: Stop only where the cosine between f(z) and the target exceeds this too, as the authors' code does.
        loss: ``"sum"``: Eq. 3, 1/2 |f(z) - target|^2. ``"mean"``: the mean of the n squared differences, which the
            authors' code minimizes; its gradient is 2 / n of the other.
        region: Where inputs may lie (each step is projected); anywhere when None, as in the paper.
        start: Where to begin, [B, *input_shape]; at the originals when None.
        precision: ``"fp32"`` or ``"fp64"``.

    Returns:
        The last points, of pairs that diverged the best ones. The trace has every step.

    Raises:
        UsageError: If an argument makes no sense.
        ModelError: If f cannot be evaluated or differentiated.
        NumericsError: If a target or the embedding of a start is not finite.
    """
    problem = Problem(f, x, target, precision)
    region = region or Region.unbounded()
    device = problem.origin.device
    rates = torch.as_tensor(rate, dtype=torch.float64, device=device).expand(len(problem))
    if not bool((rates > 0).all()) or not bool(torch.isfinite(rates).all()):
        raise UsageError("a learning rate must be positive and finite", got=rate)
    if steps < 1:
        raise UsageError("steps must be at least 1", got=steps)
    if loss not in ("sum", "mean"):
        raise UsageError("unknown loss", expected="sum or mean", got=repr(loss))
    if loss == "mean":
        rates = rates * 2 / problem.n
    goal = goals(distance, problem)
    lower, upper = region.bounds(problem.origin, problem.dtype)
    bounded = bool(torch.isfinite(lower).any() | torch.isfinite(upper).any()) or region.l2 is not None
    evaluate = at_precision(f, precision)
    z = problem.origin.clone() if start is None else start.to(problem.origin).flatten(1)
    z = problem.rounded(region.project(z, problem.origin, problem.dtype))
    residual = torch.empty_like(problem.target)
    apart = torch.full((len(problem),), torch.inf, dtype=torch.float64, device=device)
    best_z, best_r, best = z.clone(), residual.clone(), apart.clone()
    stop: list[Stop] = ["allowance"] * len(problem)
    recorder = Recorder(problem)
    which = torch.arange(len(problem), device=device)
    first: torch.Tensor | None = None
    for step in range(steps + 1):
        with torch.enable_grad(), ieee_float32(), explained("reverse"):
            here = z[which].to(problem.dtype).reshape(-1, *problem.shape).requires_grad_(True)
            value = applied(evaluate, True, here)
            problem.check_length(value)
            problem.passed(which)
            found = value.detach().to(torch.float64) - problem.target[which]
            residual[which] = found
            apart[which] = torch.linalg.vector_norm(found, dim=1)
            if first is None:
                finite_start(apart)
                first = apart.clone()
            recorder.note(z[which], found, which)
            better = apart[which] < best[which]
            kept = which[better]
            best_z[kept], best_r[kept], best[kept] = z[kept], residual[kept], apart[kept]
            near = apart[which] <= goal[which]
            if cosine is not None:
                near &= recorder.last_cosine(which) > cosine
            lost = ~(apart[which] <= DIVERGED * first[which])
            for place in torch.nonzero(near | lost).flatten().tolist():
                stop[int(which[place])] = "reached" if bool(near[place]) else "diverged"
            if step == steps or bool((near | lost).all()):
                break
            (gradient,) = torch.autograd.grad(value, here, found.to(problem.dtype), materialize_grads=True)
        keep = ~(near | lost)
        which, gradient = which[keep], gradient.flatten(1).to(torch.float64)[keep]
        problem.spent(which, 1)
        moved = problem.rounded(z[which] - rates[which, None] * gradient)
        if bounded:
            moved = problem.rounded(region.project(moved, problem.origin[which], problem.dtype))
        z[which] = moved
    lost = torch.tensor([reason == "diverged" for reason in stop], device=device)
    z = torch.where(lost[:, None], best_z, z)
    return Matching(
        x=z.to(problem.dtype).reshape(-1, *problem.shape),
        residual=torch.where(lost[:, None], best_r, residual),
        distance=torch.where(lost, best, apart),
        stop=tuple(stop),
        trace=recorder.trace(),
        cost=problem.cost(),
        jacobians=torch.zeros(len(problem), dtype=torch.int64),
        optimality=torch.full_like(apart, torch.nan),
        reducible=torch.full_like(apart, torch.nan),
        solver="gd",
        details={"rate": rates.tolist(), "loss": loss, "precision": precision, "steps": len(recorder) - 1},
    )
