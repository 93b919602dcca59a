"""Projected ascent on the largest singular value of J(z) over a ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import equivengine as eqv
from equivengine_plugins.probes.lipschitz.triplet import Triplets, top_triplets

if TYPE_CHECKING:
    from equivengine_plugins.probes.lipschitz.ball import Ball

#: Relative residual of singular triplets on the way; the error of s is of second order in it where s_1 is isolated.
PATH_TOLERANCE = 1e-4
#: First step, as a share of the radius; it grows where s_1 rises, and is halved where it does not.
FIRST_STEP = 0.5
GROWTH = 1.5
LONGEST_STEP = 2.0
#: An ascent ends when every step is shorter than this share of the radius.
SHORTEST_STEP = 1e-3
#: Share of the last direction in the next (Polyak, 1964; for signed steps Dong et al., CVPR 2018). s_1 has narrow
#: ridges, along which plain gradients zigzag: on digits, in an L2 ball of radius 1, 20 steps reach 1.5 times as far.
MOMENTUM = 0.9


@dataclass(frozen=True)
class Ascent:
    """Ascents from B starts over K steps at most.

    Attributes:
        s: Largest singular value at the point that each start had reached after each step, [K' + 1, B]; never falling.
        distance: Distance of that point from x, in the norm of the ball, [K' + 1, B].
        points: The points of each start, accepted ones only, in order: B lists of [m], in the run's precision.
        last: Triplets at the last points.
        products: Products with J or J^T of one point that were spent.
    """

    s: torch.Tensor
    distance: torch.Tensor
    points: list[list[torch.Tensor]]
    last: Triplets
    products: int


def gradient(task: eqv.ProbeTask[Any], points: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Gradient of s_1(J(z)) with respect to z, [B, m], float64, from triplets (u, v) at points z [B, m].

    Where s_1 is simple its derivative is that of u^T J(z) v with u and v held. That is the derivative of J(z + h v)^T u
    over h at h = 0, a central difference of two VJPs: no second derivatives of the model are needed.
    """
    shape = task.samples[0].shape
    dtype = torch.float32 if task.precision == "fp32" else torch.float64
    h = torch.finfo(dtype).eps ** (1 / 3)
    batch = len(points)
    ends = torch.stack([points + h * v, points - h * v]).to(dtype)
    operator = task.jacobian(ends.reshape(2 * batch, *shape), reverse=True)
    pulled = operator.vjp(u.repeat(2, 1)[None])[0].reshape(2, batch, -1).to(torch.float64)
    made = torch.linalg.vector_norm(ends[0].to(torch.float64) - ends[1].to(torch.float64), dim=1, keepdim=True)
    return (pulled[0] - pulled[1]) / made


def ascend(task: eqv.ProbeTask[Any], ball: Ball, starts: torch.Tensor, steps: int, vectors: torch.Tensor) -> Ascent:
    """Ascend from all starts together, in the task's precision.

    Each start has its own step length. A proposal is accepted only where s_1 rises beyond its roundoff, so inexact
    gradients cost steps, never correctness.

    Args:
        task: The task.
        ball: Where points may lie.
        starts: Points of the ball [B, m], float64.
        steps: Steps at most.
        vectors: Right vectors [k, m] to begin the first singular triplets with.
    """
    shape = task.samples[0].shape
    batch = len(starts)

    def measured(points: torch.Tensor, warm: torch.Tensor) -> tuple[torch.Tensor, Triplets]:
        """Points as they are after rounding, and the triplets there."""
        operator = task.jacobian(points.reshape(-1, *shape).to(dtype))
        return operator.x.flatten(1).to(torch.float64), top_triplets(operator, warm, PATH_TOLERANCE)

    dtype = torch.float32 if task.precision == "fp32" else torch.float64
    z, here = measured(starts, vectors.expand(batch, *vectors.shape))
    rate = torch.full((batch, 1), FIRST_STEP, dtype=torch.float64, device=z.device)
    reached = [[point] for point in z.to(dtype)]
    s, distance = [here.s], [ball.distance(z)]
    products = here.products
    uphill = direction = torch.zeros_like(z)
    rises = torch.ones(batch, 1, dtype=torch.bool, device=z.device)
    for _ in range(steps):
        if bool(rises.any()):
            uphill = gradient(task, z, here.u, here.v[:, 0])
            uphill = uphill / torch.linalg.vector_norm(uphill, dim=1, keepdim=True).clamp_min(
                torch.finfo(torch.float64).tiny
            )
            direction = torch.where(rises, MOMENTUM * direction + uphill, direction)
            products += 2
        proposal, there = measured(ball.project(z + rate * ball.radius * ball.direction(direction)), here.v)
        products += there.products
        rises = (there.s > here.s * (1 + 8 * torch.finfo(dtype).eps))[:, None]
        for k in torch.nonzero(rises[:, 0]).flatten().tolist():
            reached[k].append(proposal[k].to(dtype))
        rate = torch.where(rises, (rate * GROWTH).clamp(max=LONGEST_STEP), rate / 2)
        direction = torch.where(rises, direction, uphill)  # where momentum has led astray, the gradient itself
        z, here = torch.where(rises, proposal, z), there.where(rises[:, 0], here)
        s.append(here.s)
        distance.append(ball.distance(z))
        if float(rate.max()) < SHORTEST_STEP:
            break
    return Ascent(torch.stack(s), torch.stack(distance), reached, here, products)
