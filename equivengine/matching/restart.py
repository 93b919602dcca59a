"""Beginning again elsewhere: what solvers do with pairs that are stuck in a local minimum."""

from __future__ import annotations

import math

import torch

from equivengine.linalg.directions import gaussian_directions
from equivengine.matching.descend import State, begin, descend
from equivengine.matching.linear import Mode
from equivengine.matching.problem import Problem
from equivengine.matching.region import Region

#: Standard deviation of the noise that is added to an original, over the range of its region or of its own values.
SPREAD = 0.3
#: Other starts that a pair gets at most, one after the other; Jacobians run out sooner.
STARTS = 32
#: Linearizations that a pair must have left to begin again, and that are kept back for its last steps.
ENOUGH, LAST = 12, 4


def restart(
    problem: Problem,
    state: State,
    stuck: torch.Tensor,
    goal: torch.Tensor,
    region: Region,
    mode: Mode,
    allowed: int,
    *,
    original: bool = False,
) -> torch.Tensor:
    """Levenberg-Marquardt for stuck pairs from other starts, their originals and noise; keeps what comes nearer.

    A start of noise is far from the valley that holds the original, and matches found from it are about as far from the
    original as others are. The noise of a start is the same for all pairs, so that a pair's course is its own.

    Args:
        problem: The problem.
        state: Where pairs stand; of ``stuck`` ones changed in place if something nearer is found, with its course.
        stuck: Which pairs, [k].
        goal: Distance to stop at, [B].
        region: Where inputs may lie.
        mode: How J is had.
        allowed: Linearizations of each pair in all, those made before included.
        original: Whether the original itself is tried first: another solver got stuck, on another way.

    Returns:
        The pairs that began again, [j].
    """
    width = _width(problem.origin, region)
    tried = torch.zeros(len(problem), dtype=torch.bool, device=problem.origin.device)
    for number in range(-1 if original else 0, STARTS):
        room = (allowed - state.jacobians).to(stuck.device)[stuck] > ENOUGH
        stuck = stuck[room & (state.apart[stuck] > goal[stuck])]
        if not len(stuck):
            break
        tried[stuck] = True
        part = problem.part(stuck)
        start = part.origin
        if number >= 0:
            noise = gaussian_directions(number, 0, 1, problem.m, device=problem.origin.device)
            start = region.project(part.origin + SPREAD * width[stuck] * noise, part.origin, problem.dtype)
        found = begin(part, start)
        bounds = region.bounds(part.origin, problem.dtype)
        most = int((allowed - state.jacobians)[stuck.cpu()].min()) - LAST
        descend(part, found, goal[stuck], bounds, mode, most, region.l2, patient=False)
        nearer = found.apart < state.apart[stuck]
        won = stuck[nearer]
        state.recorder.splice(found.recorder, torch.nonzero(nearer).flatten(), won, state.apart[won])
        state.jacobians[stuck.cpu()] += found.jacobians
        problem.add(part.cost(), stuck.cpu())
        state.z[won], state.residual[won], state.apart[won] = (
            each[nearer] for each in (found.z, found.residual, found.apart)
        )
        for place in torch.nonzero(nearer).flatten().tolist():
            state.stop[int(stuck[place])] = found.stop[place]
    return torch.nonzero(tried).flatten()


def _width(origin: torch.Tensor, region: Region) -> torch.Tensor:
    """The range of the box, or where it has none that of each original's values, [B, 1]; 1 for a constant one."""
    width = region.high - region.low
    if math.isfinite(width):
        return torch.full_like(origin[:, :1], width)
    own = origin.amax(dim=1, keepdim=True) - origin.amin(dim=1, keepdim=True)
    return torch.where(own > 0, own, 1.0)
