"""Paths within a class: along the straight line to another image, matched at each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import equivengine as eqv

if TYPE_CHECKING:
    from equivengine_plugins.probes.path.parameters import PathParams


@dataclass(frozen=True)
class Paths:
    """B paths of K steps.

    Attributes:
        nodes: Points [K + 1, B, *input_shape]; row 0 are the starts.
        distance: |f(z) - f(start)| as the solver saw it, [K + 1, B] float64.
        equivalents: Forward-pass equivalents, [B].
        jacobians: Jacobians, [B].
    """

    nodes: torch.Tensor
    distance: torch.Tensor
    equivalents: torch.Tensor
    jacobians: torch.Tensor


def within_classes(
    task: eqv.ProbeTask[PathParams],
    starts: torch.Tensor,
    others: torch.Tensor,
    embeddings: torch.Tensor,
    goal: float,
) -> Paths:
    """From each start towards another image, in steps of 1 / K of the difference, back onto the start's class.

    Each step goes on from the last point by (other - start) / K and is matched to f(start) from there: small steps need
    small corrections, and what these have added up to is kept.

    Args:
        task: Encoder, precision and parameters.
        starts: [B, *input_shape].
        others: Likewise.
        embeddings: f(start), [B, n].
        goal: |f(z) - f(start)| to reach.
    """
    params = task.params
    low, high = task.encoder.spec.input_range
    region = eqv.matching.Region(low, high) if params.box else eqv.matching.Region.unbounded()
    z, step = starts, (others - starts) / params.steps
    nodes, distance = [z], [torch.zeros(len(z), dtype=torch.float64, device=z.device)]
    equivalents, jacobians = (torch.zeros(len(z), dtype=torch.int64) for _ in range(2))
    for _ in range(params.steps):
        guess = (z + step).clamp(region.low, region.high)
        found = eqv.matching.levenberg_marquardt(
            task.encoder,
            guess,
            embeddings,
            distance=goal,
            region=region,
            precision=task.precision,
            max_jacobians=params.max_jacobians,
            jacobian=params.jacobian,
        )
        z = found.x
        nodes.append(z)
        distance.append(found.distance)
        equivalents += found.cost.equivalents
        jacobians += found.jacobians
    return Paths(torch.stack(nodes), torch.stack(distance), equivalents, jacobians)
