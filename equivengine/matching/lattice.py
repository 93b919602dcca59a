"""The best match on a lattice of levels: what an 8-bit image file can hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from equivengine.errors import UsageError
from equivengine.matching.descend import State, begin, descend
from equivengine.matching.goals import goals
from equivengine.matching.linear import Dense, choose, linearise
from equivengine.matching.problem import Problem
from equivengine.matching.region import Region
from equivengine.matching.result import Matching

#: Shares of the coordinates that are on the lattice after each round; those nearest to a level go first. What is left
#: makes up for the rounding of the rest.
FIXED = (0.5, 0.75, 0.875, 0.9375, 0.96875, 0.984375, 1.0)
#: Linearizations of a round.
ROUND = 2
#: Moves by one level along one linear model, and first moves that are tried together with a second.
MOVES, PAIRED = 400, 32


def to_lattice(
    f: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    target: torch.Tensor,
    *,
    start: torch.Tensor,
    distance: float | torch.Tensor,
    region: Region | None = None,
    levels: int = 255,
    precision: str = "fp32",
    max_jacobians: int = 30,
    jacobian: Literal["auto", "dense", "products"] = "auto",
) -> Matching:
    """Move a match onto the levels low + k (high - low) / levels of the region's box, matching as well as it can.

    Rounding alone costs about |J|_F / sqrt(12) levels. Here coordinates are rounded in rounds, those nearest to a level
    first, and Levenberg-Marquardt lets the others make up for it; then single coordinates, and pairs of them, move by
    one level wherever the linear model says that the distance falls, and f is asked whether it does. This is a
    heuristic for a closest-vector problem, which is NP-hard: what it finds is an upper bound of the best distance.

    Args:
        f: An encoder, or any callable [B, *input_shape] -> [B, n].
        x: Originals, [B, *input_shape]; budgets of the region are around them.
        target: Target embeddings, [B, n].
        start: Matches, [B, *input_shape], within the region.
        distance: Stop at |f(z) - target| of this or less; one number, or one for each pair, [B].
        region: Where inputs may lie, with a finite box; the box [0, 1] when None.
        levels: Steps between the ends of the box.
        precision: ``"fp32"`` or ``"fp64"``.
        max_jacobians: Points at which the model may be linearized, for each pair.
        jacobian: As for `levenberg_marquardt`. Moves by one level need a formed J and are left out without it.

    Returns:
        Inputs on the lattice; ``details["rounded"]`` has the distances that rounding alone gives.

    Raises:
        UsageError: If an argument makes no sense, or a budget leaves a coordinate without a level.
        ModelError: If f cannot be evaluated or differentiated.
        NumericsError: If a target, the embedding of a start or a derivative is not finite.
    """
    problem = Problem(f, x, target, precision)
    region = region or Region()
    if not (region.high - region.low < float("inf")):
        raise UsageError("a lattice needs a box", expected="finite low and high", got=(region.low, region.high))
    if levels < 1:
        raise UsageError("levels must be at least 1", got=levels)
    goal = goals(distance, problem)
    lattice = _Lattice(problem, region, levels)
    z = start.to(problem.origin).flatten(1)
    state = begin(problem, lattice.nearest(z))
    rounded = state.apart.clone()
    best = [state.z.clone(), state.residual.clone(), state.apart.clone()]
    mode = choose(problem, jacobian)
    which = torch.nonzero(state.apart > goal).flatten()
    if len(which):
        state.z[which] = problem.rounded(region.project(z, problem.origin, problem.dtype))[which]
        _round_by_and_by(problem, state, lattice, which, goal, mode, max_jacobians)
        _keep(state, best)
    if mode == "dense":
        _single_moves(problem, state, lattice, goal, max_jacobians)
    state.stop = ["reached" if near else "stalled" for near in (state.apart <= goal).tolist()]
    if region.l2 is not None:
        beyond = torch.linalg.vector_norm(state.z - problem.origin, dim=1) > region.l2
        state.stop = ["stalled" if far else why for far, why in zip(beyond.tolist(), state.stop, strict=True)]
    return state.matching(problem, "lattice", mode, rounded=rounded.tolist(), levels=levels)


class _Lattice:
    """Levels, and the lowest and highest that each coordinate may take."""

    def __init__(self, problem: Problem, region: Region, levels: int) -> None:
        self.low, self.step = region.low, (region.high - region.low) / levels
        self._problem = problem
        lower, upper = region.bounds(problem.origin, problem.dtype)
        # Half a roundoff of slack: level / 255 in float32 is not exactly what it is in float64.
        slack = 1e-6
        self.first = torch.ceil((lower - self.low) / self.step - slack)
        self.last = torch.floor((upper - self.low) / self.step + slack)
        if bool((self.first > self.last).any()):
            raise UsageError(
                "the L-infinity budget leaves a coordinate without a level",
                expected=f"at least half a level, {self.step / 2:.3g}",
                got=region.linf,
            )

    def level(self, z: torch.Tensor) -> torch.Tensor:
        """The nearest allowed level of each coordinate."""
        return torch.clamp(torch.round((z - self.low) / self.step), self.first, self.last)

    def value(self, level: torch.Tensor) -> torch.Tensor:
        """What a level stands for, as f sees it."""
        return self._problem.rounded(self.low + level * self.step)

    def nearest(self, z: torch.Tensor) -> torch.Tensor:
        """The nearest point of the lattice."""
        return self.value(self.level(z))


def _keep(state: State, best: list[torch.Tensor]) -> None:
    """Go back to ``best`` (points, residuals, distances) where pairs stand no nearer."""
    worse = state.apart >= best[2]
    for mine, other in zip((state.z, state.residual, state.apart), best, strict=True):
        mine[worse] = other[worse]


def _round_by_and_by(
    problem: Problem,
    state: State,
    lattice: _Lattice,
    which: torch.Tensor,
    goal: torch.Tensor,
    mode: Literal["dense", "products"],
    most: int,
) -> None:
    fixed = torch.zeros_like(state.z, dtype=torch.bool)
    low, high = lattice.value(lattice.first), lattice.value(lattice.last)
    aside = torch.full_like(goal, torch.inf)
    aside[which] = goal[which]
    for share in FIXED:
        snapped = lattice.nearest(state.z)
        off = (state.z - snapped).abs()
        # Coordinates that lie on the lattice already (bounds above all) are fixed as well as those that are put there.
        count = round(share * problem.m)
        order = torch.where(fixed, -1.0, off).argsort(dim=1)
        fixed.scatter_(1, order[:, :count], True)
        state.z[which] = torch.where(fixed, snapped, state.z)[which]
        state.residual[which] = problem.residual(state.z[which], which)
        state.apart[which] = torch.linalg.vector_norm(state.residual[which], dim=1)
        state.recorder.note(state.z[which], state.residual[which], which)
        if share < 1 and int(state.jacobians.max()) + ROUND <= most:
            bounds = torch.where(fixed, state.z, low), torch.where(fixed, state.z, high)
            descend(problem, state, aside, bounds, mode, ROUND)


def _single_moves(problem: Problem, state: State, lattice: _Lattice, goal: torch.Tensor, most: int) -> None:
    """Move single coordinates and pairs of them by one level while f says that it helps."""
    which = torch.nonzero(state.apart > goal).flatten()
    while len(which):
        model = linearise(problem, state.z[which], which, "dense")
        state.jacobians[which.cpu()] += 1
        assert isinstance(model, Dense)
        level = lattice.level(state.z)[which]
        moved = torch.stack(
            [
                _moves(J, r, at, low, high, lattice.step)
                for J, r, at, low, high in zip(
                    model.J, state.residual[which], level, lattice.first[which], lattice.last[which], strict=True
                )
            ]
        )
        point = lattice.value(moved)
        residual = problem.residual(point, which)
        apart = torch.linalg.vector_norm(residual, dim=1)
        better = apart < state.apart[which]
        # Another Jacobian for less than a few per cent is not worth its price.
        on = better & (apart < 0.97 * state.apart[which]) & (state.jacobians.to(which.device)[which] < most)
        won = which[better]
        state.z[won], state.residual[won], state.apart[won] = point[better], residual[better], apart[better]
        state.recorder.note(state.z[which], state.residual[which], which)
        which = which[on & (state.apart[which] > goal[which])]


def _moves(
    J: torch.Tensor, residual: torch.Tensor, level: torch.Tensor, low: torch.Tensor, high: torch.Tensor, step: float
) -> torch.Tensor:
    """Levels [m] after greedy moves that lower |r + J d|: the best single one, else the best of many pairs."""
    level, r = level.clone(), residual.clone()
    squares = step**2 * J.square().sum(dim=0)
    for _ in range(MOVES):
        closed = torch.stack([level >= high, level <= low])  # up, down
        pulled = step * (J.T @ r)
        change = torch.stack([squares + 2 * pulled, squares - 2 * pulled]).masked_fill(closed, torch.inf)
        best = int(change.argmin())
        if float(change.flatten()[best]) < -1e-9 * float(r.square().sum()):
            moves = [best]
        else:
            moves = _pair(J, change, step, r)
            if not moves:
                break
        for move in moves:
            sign, place = (1 if move < len(level) else -1), move % len(level)
            level[place] += sign
            r = r + sign * step * J[:, place]
    return level


def _pair(J: torch.Tensor, change: torch.Tensor, step: float, r: torch.Tensor) -> list[int]:
    """The best pair of moves out of the `PAIRED` best first ones with any second one; empty if none helps."""
    m = J.shape[1]
    first = change.flatten().topk(min(PAIRED, 2 * m), largest=False).indices
    first = first[torch.isfinite(change.flatten()[first])]
    signs = torch.where(first < m, 1.0, -1.0).to(J)
    cross = 2 * step**2 * signs[:, None] * (J[:, first % m].T @ J)  # [p, m]
    both = torch.cat([cross, -cross], dim=1) + change.flatten() + change.flatten()[first, None]
    # The same coordinate twice would be a move by two levels, or none.
    rows = torch.arange(len(first), device=J.device)
    both[rows, first % m] = torch.inf
    both[rows, first % m + m] = torch.inf
    if not len(first):
        return []
    best = int(both.argmin())
    if not float(both.flatten()[best]) < -1e-9 * float(r.square().sum()):
        return []
    return [int(first[best // (2 * m)]), best % (2 * m)]
