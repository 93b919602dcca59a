"""The neighborhood of x over which Eq. 6 is maximized: an L2 or L-infinity ball, cut by the pixel box if asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

import equivengine as eqv


@dataclass(frozen=True)
class Ball:
    """A ball around x, or its intersection with a box that contains x.

    Attributes:
        centre: x, [m], float64.
        radius: In [0, 1] pixel units.
        norm: ``"l2"`` or ``"linf"``.
        box: (low, high) of every coordinate, or ``None``.
    """

    centre: torch.Tensor
    radius: float
    norm: Literal["l2", "linf"]
    box: tuple[float, float] | None = None

    def distance(self, points: torch.Tensor) -> torch.Tensor:
        """Distance from x in the ball's own norm: [B, m] -> [B]."""
        return torch.linalg.vector_norm(points - self.centre, ord=2 if self.norm == "l2" else torch.inf, dim=-1)

    def margin(self, points: torch.Tensor) -> float:
        """How far inside the set the outermost of points [B, m] lies, in the ball's norm; negative if outside."""
        inside = self.radius - float(self.distance(points).max())
        if self.box is None:
            return inside
        low, high = self.box
        return min(inside, float(points.min()) - low, high - float(points.max()))

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """The step of length 1 (in the ball's norm) that rises fastest along gradients [B, m]; 0 where they vanish."""
        if self.norm == "linf":
            return gradient.sign()
        length = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        return torch.where(length > 0, gradient / length.clamp_min(torch.finfo(gradient.dtype).tiny), 0.0)

    def project(self, points: torch.Tensor) -> torch.Tensor:
        """The nearest points (L2) of the set: [B, m] -> [B, m], float64."""
        low, high = self.box or (-math.inf, math.inf)
        region = eqv.matching.Region(low, high, **{self.norm: self.radius})
        points = points.to(torch.float64)
        return region.project(points, self.centre.expand_as(points), torch.float64)

    def random(self, key: int, count: int) -> torch.Tensor:
        """Random points of the set, number 0 on of the stream ``key``: [count, m], float64; uniform without a box.

        With one, uniform points of the ball are projected onto the box.
        """
        m = len(self.centre)
        normal = eqv.linalg.gaussian_directions(key, 0, count, m + 1, device=self.centre.device)
        uniform = 0.5 * (1 + torch.erf(normal / 2**0.5))
        if self.norm == "linf":
            offsets = 2 * uniform[:, :m] - 1
        else:
            offsets = normal[:, :m] / torch.linalg.vector_norm(normal[:, :m], dim=1, keepdim=True)
            offsets = offsets * uniform[:, m:] ** (1 / m)
        return self.project(self.centre + self.radius * offsets)

    def inner(self, point: torch.Tensor, direction: torch.Tensor, h: float) -> torch.Tensor:
        """A point next to ``point`` [m] whose neighbors at +-h direction [m] (unit, L2) both belong to the set.

        The set is convex: moving a share t towards a point that lies deeper than (h / t) moves ``point`` deep enough.
        """
        longest = float(direction.abs().max())
        anchor, depth = self.centre, self.radius / (1.0 if self.norm == "l2" else longest)
        if self.box is not None:
            low, high = self.box
            # Give way to the box by at most half the radius; what is left of the ball is at least as deep.
            spread = len(self.centre) ** 0.5 if self.norm == "l2" else 1.0
            room = min(self.radius / (2 * spread), (high - low) / 2)
            anchor = self.centre.clamp(low + room, high - room)
            depth = min(room / longest, depth / 2)
        share = min(1.0, h / depth)
        return point + share * (anchor - point)
