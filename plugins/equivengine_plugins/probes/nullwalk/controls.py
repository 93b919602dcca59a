"""Controls: the same distances in directions that know nothing of the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import equivengine as eqv
from equivengine_plugins.probes.yardstick import embeddings

if TYPE_CHECKING:
    from equivengine_plugins.probes.nullwalk.parameters import NullWalkParams

KINDS = ("shuffled", "random")


@dataclass(frozen=True)
class Controls:
    """What moves of a walk's lengths do to the embedding; by kind ("shuffled", "random"), float64.

    Attributes:
        drift: |f(x + e) - f(x)| for e as long as z - x of each point, [K + 1].
        change: |f(z + e) - f(z)| for e as long as each step, from where it starts, [K].
        walked: |f(z') - f(z)| of the steps themselves, [K].
        length: Smallest length realized over that wanted; less than 1 only where a move met both bounds of a pixel.
    """

    drift: dict[str, torch.Tensor]
    change: dict[str, torch.Tensor]
    walked: torch.Tensor
    length: dict[str, float]


def controls_of(task: eqv.ProbeTask[NullWalkParams], points: torch.Tensor) -> Controls:
    """Measure them for points [K + 1, *input_shape]; a function of the task's seed and first sample.

    Shuffled: the coordinates of the move in random order, a new one for each move. Random: a Gaussian direction. A
    coordinate that would leave the box goes as far the other way.
    """
    z = points.double().flatten(1)
    f = embeddings(task, points)
    bounds = task.encoder.spec.input_range if task.params.box else None
    straight, steps = z[1:] - z[:1], z.diff(dim=0)
    drift: dict[str, torch.Tensor] = {}
    change: dict[str, torch.Tensor] = {}
    length: dict[str, float] = {}
    for kind in KINDS:
        shortest = 1.0
        for number, (name, start, moves) in enumerate((("drift", z[:1], straight), ("change", z[:-1], steps))):
            others = _others(task, kind, moves, number)
            moved, realised = inside(start.expand_as(moves), others, bounds)
            here = f[:1] if name == "drift" else f[:-1]
            apart = torch.zeros(0, dtype=torch.float64, device=z.device)
            if len(moved):
                inputs = moved.to(points.dtype).reshape(-1, *points.shape[1:])
                apart = torch.linalg.vector_norm(embeddings(task, inputs) - here, dim=1)
                shortest = min(shortest, float(realised.min()))
            (drift if name == "drift" else change)[kind] = apart
        drift[kind] = torch.cat([drift[kind].new_zeros(1), drift[kind]])
        length[kind] = shortest
    return Controls(drift, change, torch.linalg.vector_norm(f.diff(dim=0), dim=1), length)


def inside(
    start: torch.Tensor, moves: torch.Tensor, bounds: tuple[float, float] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Points ``start + moves`` [K, m] with what leaves the bounds mirrored, and realized over wanted lengths [K]."""
    end = start + moves
    if bounds is not None:
        outside = (end < bounds[0]) | (end > bounds[1])
        end = torch.where(outside, start - moves, end).clamp(*bounds)
    size = torch.linalg.vector_norm(moves, dim=1).clamp_min(torch.finfo(moves.dtype).tiny)
    return end, torch.linalg.vector_norm(end - start, dim=1) / size


def _others(task: eqv.ProbeTask[NullWalkParams], kind: str, moves: torch.Tensor, number: int) -> torch.Tensor:
    """Moves of the same lengths [K, m]."""
    count, m = moves.shape
    drawn = eqv.linalg.gaussian_directions(task.stream(f"{kind}-{number}"), 0, count, m, device=moves.device)
    if kind == "shuffled":
        return moves.gather(1, drawn.argsort(dim=1))
    lengths = torch.linalg.vector_norm(moves, dim=1, keepdim=True)
    return drawn / torch.linalg.vector_norm(drawn, dim=1, keepdim=True) * lengths
