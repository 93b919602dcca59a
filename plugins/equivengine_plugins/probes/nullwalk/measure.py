"""The whole measurement: walks of one call, and what fresh evaluations say of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import equivengine as eqv
from equivengine_plugins.probes.nullwalk.controls import Controls, controls_of
from equivengine_plugins.probes.nullwalk.fresh import Fresh, look_again
from equivengine_plugins.probes.yardstick import Yardstick
from equivengine_plugins.probes.yardstick import measure as measure_yardstick

if TYPE_CHECKING:
    from equivengine_plugins.probes.nullwalk.parameters import NullWalkParams

#: Bytes of float64 Jacobians that the walks of one call hold, and up to which one is formed to find its rank.
JACOBIANS, RANK = 4 << 30, 2 << 30


@dataclass(frozen=True)
class Measured:
    """What is known of one walk.

    Attributes:
        task: Its task.
        yardstick: What distances are held against.
        points: Points [K + 1, *input_shape], in the run's precision; row 0 is the start, all others are further on.
        progress: How far each is along the wanted way, [K + 1] float64, input units.
        wanted: Lengths of the wanted steps, [K].
        claimed: |f(z) - f(x)| as the walk saw it, [K + 1].
        end: Why it ended.
        fresh: What fresh evaluations say.
        controls: What steps of equal length in other directions do.
        rank: Rank of J at the start above its resolution; None where J is too large to be written out.
        equivalents: Forward-pass equivalents that the walk took.
        jacobians: How often J was formed.
        mode: How J was used.
    """

    task: eqv.ProbeTask[NullWalkParams]
    yardstick: Yardstick
    points: torch.Tensor
    progress: torch.Tensor
    wanted: torch.Tensor
    claimed: torch.Tensor
    end: str
    fresh: Fresh
    controls: Controls
    rank: int | None
    equivalents: int
    jacobians: int
    mode: str

    @property
    def moved(self) -> torch.Tensor:
        """From the start to all points: z - x, [K + 1, m] float64."""
        return (self.points.double() - self.points[0].double()).flatten(1)

    @property
    def lengths(self) -> torch.Tensor:
        """Lengths of the steps, [K] float64."""
        return torch.linalg.vector_norm(self.points.double().diff(dim=0).flatten(1), dim=1)


def measure(tasks: Sequence[eqv.ProbeTask[NullWalkParams]]) -> list[eqv.ProbeResult]:
    """Walk from the inputs of tasks with equal parameters, seeds and references, as many at once as memory allows.

    Raises:
        UsageError: If a start is its own goal, or lies outside of the input range.
        NumericsError: If an embedding or a derivative is not finite, or the yardstick is zero.
    """
    from equivengine_plugins.probes.nullwalk.result import make_result

    yardstick = measure_yardstick(tasks[0])
    spec = tasks[0].encoder.spec
    size = 8 * spec.embedding_dim * tasks[0].samples[0].numel()
    together = max(1, JACOBIANS // size)
    results = []
    for first in range(0, len(tasks), together):
        part = tasks[first : first + together]
        walk = _walk(part, yardstick)
        results += [make_result(_measured(task, walk, row, yardstick)) for row, task in enumerate(part)]
    return results


def _walk(tasks: Sequence[eqv.ProbeTask[NullWalkParams]], yardstick: Yardstick) -> eqv.matching.Walk:
    task, params = tasks[0], tasks[0].params
    x = torch.stack([each.samples[0] for each in tasks])
    low, high = task.encoder.spec.input_range
    if params.direction == "target":
        way = {"towards": torch.stack([each.samples[1] for each in tasks])}
    else:
        drawn = [
            eqv.linalg.gaussian_directions(each.stream("direction"), 0, 1, x[0].numel(), device=x.device)
            for each in tasks
        ]
        way = {"direction": torch.cat(drawn).reshape(x.shape)}
    return eqv.matching.null_walk(
        task.encoder,
        x,
        distance=params.tolerance * yardstick.median,
        region=eqv.matching.Region(low, high) if params.box else eqv.matching.Region.unbounded(),
        step=params.step * (high - low) * x[0].numel() ** 0.5,
        steps=params.steps,
        precision=task.precision,
        jacobian=params.jacobian,
        **way,
    )


def _measured(task: eqv.ProbeTask[NullWalkParams], walk: eqv.matching.Walk, row: int, yardstick: Yardstick) -> Measured:
    steps = int(walk.steps[row])
    points = walk.points[: steps + 1, row]
    return Measured(
        task=task,
        yardstick=yardstick,
        points=points,
        progress=walk.progress[: steps + 1, row],
        wanted=walk.wanted[:steps, row],
        claimed=walk.distance[: steps + 1, row],
        end=walk.end[row],
        fresh=look_again(task, points, task.params.between),
        controls=controls_of(task, points),
        rank=_rank(task),
        equivalents=int(walk.cost.equivalents[row]),
        jacobians=int(walk.jacobians[row]),
        mode=walk.mode,
    )


def _rank(task: eqv.ProbeTask[NullWalkParams]) -> int | None:
    """Singular values of J at the start above its resolution."""
    operator = task.jacobian(task.samples[0])
    n, m = operator.shape
    if 8 * n * m > RANK:
        return None
    found = eqv.linalg.svd(operator, method="exact", vectors=False)
    operator.release()
    return found.require().rank
