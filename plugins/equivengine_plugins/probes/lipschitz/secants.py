"""Difference quotients of points of the ball: each is a lower bound of Eq. 6's constant by the definition itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import equivengine as eqv
from equivengine_plugins.probes.lipschitz.triplet import top_triplets

if TYPE_CHECKING:
    from equivengine_plugins.probes.lipschitz.ball import Ball

#: Relative residual of singular triplets in float64, at x and at the maximizer.
EXACT_TOLERANCE = 1e-9
#: Points that go through the model together when only f is wanted.
BATCH = 16


@dataclass(frozen=True)
class Verified:
    """The maximizer of an ascent, looked at again in float64.

    Attributes:
        s: s_1 there.
        v: Its right singular vector, [m].
        residual: Of its singular triplet: some singular value lies within it of `s`.
        secant: |f(c + h v) - f(c - h v)| over the realized distance, c next to the maximizer.
        roundoff: What rounding of f can contribute to `secant`.
        h: Half the distance of the two points.
        margin: How far inside the ball (and box) the outer of the two points lies; negative if outside.
        path_secant: The largest difference quotient over all pairs of points of the ascents.
        path_roundoff: What rounding of f can contribute to it.
    """

    s: float
    v: torch.Tensor
    residual: float
    secant: float
    roundoff: float
    h: float
    margin: float
    path_secant: float
    path_roundoff: float


def verify(
    task: eqv.ProbeTask[Any], ball: Ball, point: torch.Tensor, vectors: torch.Tensor, path: torch.Tensor
) -> Verified:
    """Verify a maximizer.

    Args:
        task: The task.
        ball: The ball.
        point: The maximizer z, [m], float64.
        vectors: Random vectors [k, m] to begin the triplet with, not those of the ascent: see `triplet.KEPT`.
        path: Points of the ascents, [P, m].
    """
    shape = task.samples[0].shape
    eps = task.encoder.epsilon("fp64")
    point = ball.project(point[None])[0]  # rounding to float32 may have put it outside
    operator = task.jacobian(point.reshape(1, *shape), precision="fp64")
    top = top_triplets(operator, vectors[None], EXACT_TOLERANCE)
    v = top.v[0, 0]
    # Short, since the points give way to the ball's surface by a multiple of h, and float64 has digits to spare.
    h = 1e-6 * ball.radius * (1.0 if ball.norm == "l2" else len(point) ** 0.5)
    centre = ball.inner(point, v, h)
    ends = torch.stack([centre + h * v, centre - h * v])
    f = task.jacobian(ends.reshape(2, *shape), precision="fp64").value
    realised = float(torch.linalg.vector_norm(ends[0] - ends[1]))
    secant = float(torch.linalg.vector_norm(f[0] - f[1])) / realised
    path_secant, path_roundoff = largest_secant(task, ball.project(path))
    return Verified(
        s=float(top.s[0]),
        v=v,
        residual=float(top.residual[0]),
        secant=secant,
        roundoff=2 * eps * float(torch.linalg.vector_norm(f[0])) / realised,
        h=h,
        margin=ball.margin(ends),
        path_secant=path_secant,
        path_roundoff=path_roundoff,
    )


def largest_secant(task: eqv.ProbeTask[Any], points: torch.Tensor) -> tuple[float, float]:
    """The largest |f(a) - f(b)| / |a - b| over pairs of points [P, m], float64, with its roundoff; 0 if P < 2."""
    shape = task.samples[0].shape
    f = torch.cat([task.jacobian(p.reshape(-1, *shape), precision="fp64").value for p in points.split(BATCH)])
    # Not by |a|^2 + |b|^2 - 2 a.b, which cancels for close points.
    apart, moved = (torch.cdist(t, t, compute_mode="donot_use_mm_for_euclid_dist") for t in (points, f))
    quotients = torch.where(apart > 0, moved / apart, 0.0)
    at = int(quotients.argmax())
    largest = float(quotients.flatten()[at])
    if largest == 0:
        return 0.0, 0.0
    size_f = float(torch.linalg.vector_norm(f, dim=1).max())
    return largest, 2 * task.encoder.epsilon("fp64") * size_f / float(apart.flatten()[at])
