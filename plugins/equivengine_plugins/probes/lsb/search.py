"""The worst move: maximized within the linear model, then on the encoder itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import equivengine as eqv

if TYPE_CHECKING:
    from equivengine_plugins.probes.lsb.evaluation import Evaluation
    from equivengine_plugins.probes.lsb.lattice import Lattice
    from equivengine_plugins.probes.lsb.linear import Linear
    from equivengine_plugins.probes.lsb.parameters import LsbParams

#: From how many moves the search on the encoder starts.
KEPT = 8
#: Iterations of the power method at most; on digits 10 to 40 are needed.
ITERATIONS = 200
#: Shares of the pixels that oppose the gradient, the largest gains first, which a step tries to move.
SHARES = (1.0, 0.5, 0.2, 0.05, 0.01)


@dataclass(frozen=True)
class Worst:
    """The worst move found.

    Attributes:
        move: Levels, [m] int16.
        path: |f(x + d) - f(x)| after each step of each search of the last budget, [steps + 1, searches]; never falling.
        rising: Whether the largest of them still gained more than the tolerance in the last step allowed.
        iterations: Of the power method.
        distinct: How many different maxima its starts ended in.
        linear: The largest |J d| among them; by J's leading part a lower bound of it.
    """

    move: torch.Tensor
    path: torch.Tensor
    rising: bool
    iterations: int
    distinct: int
    linear: float


def find_worst(evaluation: Evaluation, linear: Linear, key: int, params: LsbParams) -> Worst:
    """Search the lattice for the largest |f(x + d) - f(x)|. What is found is a lower bound of the maximum.

    Budgets of more than one level are worked up to, 1, 2, 4, ...: the moves found within one budget, as they are and
    twice as long, are among the starts of the next. So twice the levels never find less, and a search that the linear
    model would send straight to the corners meets what lies before them.

    Args:
        evaluation: The encoder at x.
        linear: The linear model there.
        key: Key of the random stream that starts come from.
        params: Budget, starts, steps and tolerance.
    """
    directions = _directions(linear, key, params.starts)
    found = torch.empty_like(evaluation.lattice.start).expand(0, -1)
    budgets = [2**k for k in range(params.levels.bit_length()) if 2**k < params.levels]
    for budget in (*budgets, params.levels):
        box = evaluation.lattice.within(budget)
        maxima, iterations = linear_maxima(linear, box, directions)
        # f chooses: a move and its mirror image in the box are nearly the same to J and may differ much to f, and the
        # last percent that the power method gains on a start may be a loss.
        starts = box.furthest(directions, torch.zeros_like(directions, dtype=torch.int16))
        candidates = torch.unique(torch.cat([maxima, starts, found, box.clamp(2 * found)]), dim=0)
        order = evaluation.lengths(candidates).argsort(descending=True)
        found, path, rising = ascend(evaluation, box, candidates[order[:KEPT]], params.steps, params.tolerance)
    move = found[int(path[-1].argmax())]
    return Worst(move, path, rising, iterations, len(maxima), float(linear.lengths(maxima).max()))


def linear_maxima(linear: Linear, lattice: Lattice, gradients: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Local maxima of |J d| over the box of allowed moves: different moves [K', m] int16, and iterations.

    |J d| is convex, so that its maximum lies at a vertex of the box, and d <- the vertex furthest along J^T J d never
    lowers it: the power method for the norm from l-infinity to l2 (Boyd, Linear Algebra Appl. 9, 1974; Higham and
    Tisseur, SIAM J. Matrix Anal. Appl. 21, 2000) on a box that need not be symmetric, since saturated pixels move one
    way only. The maximum itself is NP-hard to find.

    Args:
        linear: The linear model.
        lattice: The box.
        gradients: What starts are the furthest moves along, [K, m].
    """
    moves = lattice.furthest(gradients, torch.zeros_like(gradients, dtype=torch.int16))
    made = 0
    while made < ITERATIONS:
        made += 1
        moved = lattice.furthest(linear.pull(linear.push(moves)), moves)
        if torch.equal(moved, moves):
            break
        moves = moved
    return torch.unique(moves, dim=0), made


def ascend(
    evaluation: Evaluation, box: Lattice, moves: torch.Tensor, steps: int, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Sign ascent on |f(x + d) - f(x)| itself, from moves [B, m] together.

    With the gradient at x + d, the pixels that oppose it go to their other end of the box: all of them, or the share
    with the largest first-order gain (`SHARES`); or all pixels go by 1, 2, 4, ... levels along its signs, as in
    projected gradient ascent. The best of these is taken. A step that gains nothing is not, so paths never fall.

    Returns:
        The moves reached [B, m], the paths [steps + 1, B], and whether the best path still rose in the last step.
    """
    best = evaluation.lengths(moves)
    path, active = [best], torch.ones_like(best, dtype=torch.bool)
    gained = 0.0
    for _ in range(steps):
        rows = torch.nonzero(active).flatten()
        proposals = _proposals(evaluation, box, moves[rows])
        sizes = evaluation.lengths(proposals.flatten(0, 1)).reshape(len(rows), -1)
        size, which = sizes.max(dim=1)
        rises = size > best[rows]
        leader = float(best.max())
        active[rows] = size > best[rows] * (1 + tolerance)
        taken = rows[rises]
        moves, best = moves.clone(), best.clone()
        moves[taken] = proposals[torch.arange(len(rows), device=which.device), which][rises]
        best[taken] = size[rises]
        path.append(best)
        gained = float(best.max()) / leader - 1 if leader > 0 else float(best.max() > 0)
        if not bool(active.any()):
            break
    return moves, torch.stack(path), len(path) == steps + 1 and gained > tolerance


def _proposals(evaluation: Evaluation, box: Lattice, moves: torch.Tensor) -> torch.Tensor:
    """Where a step of `ascend` may go: [B, m] -> [B, P, m]."""
    gradients = evaluation.uphill(moves)
    wanted = box.furthest(gradients, moves)
    gain = (wanted - moves) * gradients
    rank = gain.argsort(dim=1, descending=True).argsort(dim=1)
    opposed = (gain > 0).sum(dim=1, keepdim=True)
    turned = [
        torch.where(rank < (share * opposed).ceil().clamp(min=1).minimum(opposed), wanted, moves) for share in SHARES
    ]
    stepped = [box.clamp(moves + 2**k * gradients.sign()) for k in range(int(box.highest.max()).bit_length())]
    return torch.stack([*turned, *stepped], dim=1)


def _directions(linear: Linear, key: int, starts: int) -> torch.Tensor:
    """Directions that starts are furthest along, [starts, m]: +-v_i from the top for half of them, then random ones.

    Random ones are J^T u with Gaussian u.
    """
    top = linear.vectors[: (starts + 3) // 4]
    signed = torch.stack([top, -top], dim=1).flatten(0, 1)[:starts]
    rest = starts - len(signed)
    u = eqv.linalg.gaussian_directions(key, 0, rest, len(linear.values), device=top.device)
    return torch.cat([signed, linear.pull(u)])
