"""The worst move: maximised within the linear model, then on the encoder itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import equivengine as eqv

if TYPE_CHECKING:
    from equivengine_plugins.probes.lsb.evaluation import Evaluation
    from equivengine_plugins.probes.lsb.lattice import Lattice
    from equivengine_plugins.probes.lsb.linear import Linear

#: From how many moves the search on the encoder starts.
KEPT = 8
#: Iterations of the power method at most; on digits 10 to 40 are needed.
ITERATIONS = 200
#: Shares of the pixels that oppose the gradient, the largest gains first, which a step tries to turn over.
SHARES = (1.0, 0.5, 0.2, 0.05, 0.01)


@dataclass(frozen=True)
class Worst:
    """The worst move found.

    Attributes:
        move: Levels, [m] int16.
        path: |f(x + d) - f(x)| after each step of each search, [steps + 1, searches]; never falling.
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


def find_worst(
    evaluation: Evaluation, linear: Linear, known: torch.Tensor, key: int, starts: int, steps: int, tolerance: float
) -> Worst:
    """Search the lattice for the largest |f(x + d) - f(x)|. What is found is a lower bound of the maximum.

    Args:
        evaluation: The encoder at x.
        linear: The linear model there.
        known: Moves [K, m] to begin with besides the maxima of the linear model.
        key: Key of the random stream that starts come from.
        starts: How many.
        steps: Steps on the encoder at most.
        tolerance: A gain below this ends the search, relative.
    """
    maxima, iterations = linear_maxima(linear, evaluation.lattice, _directions(linear, key, starts))
    # By what the encoder says of them: to J, d and its mirror image in the box differ little; to f they may.
    candidates = torch.unique(torch.cat([known, maxima]), dim=0)
    order = evaluation.lengths(candidates).argsort(descending=True)
    move, path, rising = ascend(evaluation, candidates[order[:KEPT]], steps, tolerance)
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
    evaluation: Evaluation, moves: torch.Tensor, steps: int, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Sign ascent on |f(x + d) - f(x)| itself, from moves [B, m] together.

    With the gradient at x + d, the pixels that oppose it are turned over: all of them, or the share with the largest
    first-order gain, whichever of `SHARES` gets furthest. A step that gains nothing is not taken, so paths never fall.

    Returns:
        The best move [m], the paths [steps + 1, B], and whether the best path was still rising in the last step.
    """
    best = evaluation.lengths(moves)
    path, active = [best], torch.ones_like(best, dtype=torch.bool)
    gained = 0.0
    for _ in range(steps):
        rows = torch.nonzero(active).flatten()
        proposals = _proposals(evaluation, moves[rows])
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
    return moves[int(best.argmax())], torch.stack(path), len(path) == steps + 1 and gained > tolerance


def _proposals(evaluation: Evaluation, moves: torch.Tensor) -> torch.Tensor:
    """Moves that follow the gradient at x + d in a share of the pixels: [B, m] -> [B, len(SHARES), m]."""
    gradients = evaluation.uphill(moves)
    wanted = evaluation.lattice.furthest(gradients, moves)
    gain = (wanted - moves) * gradients
    rank = gain.argsort(dim=1, descending=True).argsort(dim=1)
    opposed = (gain > 0).sum(dim=1, keepdim=True)
    proposals = [
        torch.where(rank < (share * opposed).ceil().clamp(min=1).minimum(opposed), wanted, moves) for share in SHARES
    ]
    return torch.stack(proposals, dim=1)


def _directions(linear: Linear, key: int, starts: int) -> torch.Tensor:
    """Directions that starts are furthest along, [starts, m]: +-v_i from the top for half of them, then random ones.

    Random ones are J^T u with Gaussian u.
    """
    top = linear.vectors[: (starts + 3) // 4]
    signed = torch.stack([top, -top], dim=1).flatten(0, 1)[:starts]
    rest = starts - len(signed)
    u = eqv.linalg.gaussian_directions(key, 0, rest, len(linear.values), device=top.device)
    return torch.cat([signed, linear.pull(u)])
