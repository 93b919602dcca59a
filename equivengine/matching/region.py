"""Where matched inputs may lie: a box, and at most so far from the original."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from equivengine.errors import UsageError


@dataclass(frozen=True)
class Region:
    """A box, cut by balls around each original.

    Attributes:
        low: Smallest value of an input coordinate; ``-inf`` for none.
        high: Largest value; ``inf`` for none.
        l2: Largest L2 distance from the original, in input units; ``None`` for any.
        linf: Largest change of one coordinate, in input units; ``None`` for any.

    Raises:
        UsageError: If the box is empty or a distance is not positive.
    """

    low: float = 0.0
    high: float = 1.0
    l2: float | None = None
    linf: float | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UsageError("the box is empty", expected="low < high", got=(self.low, self.high))
        for name in ("l2", "linf"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"the {name} budget must be positive and finite", got=value)

    @classmethod
    def unbounded(cls) -> Region:
        """All of R^m."""
        return cls(-math.inf, math.inf)

    def bounds(self, origin: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Bounds of every coordinate around originals [B, m], as numbers of ``dtype``, rounded inward; float64 [B, m].

        Rounding a point between them to ``dtype`` then keeps it between them.

        Raises:
            UsageError: If an original lies outside the box.
        """
        outside = origin[(origin < self.low) | (origin > self.high)]
        if len(outside):
            raise UsageError(
                "an original lies outside the box",
                expected=f"values in [{self.low:g}, {self.high:g}]",
                got=f"{len(outside)} value{'' if len(outside) == 1 else 's'} beyond it, {float(outside[0]):g} for one",
                hint="give the model's own input range, or leave the box out",
            )
        lower, upper = torch.full_like(origin, self.low), torch.full_like(origin, self.high)
        if self.linf is not None:
            lower, upper = lower.clamp_min(origin - self.linf), upper.clamp_max(origin + self.linf)
        return inward(lower, upper, dtype)

    def project(self, points: torch.Tensor, origin: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The nearest points (L2) of the region: [B, m] -> [B, m], float64."""
        lower, upper = self.bounds(origin, dtype)
        return project(points, origin, lower, upper, self.l2)


def project(
    points: torch.Tensor, centre: torch.Tensor, lower: torch.Tensor, upper: torch.Tensor, radius: float | None
) -> torch.Tensor:
    """The nearest points (L2) of the intersection of boxes and of L2 balls around points of these boxes.

    By the conditions of optimality it is clamp(c + w (p - c)) with the largest weight w <= 1 that lies in the ball: the
    distance from the center never falls as w grows, so bisection finds it.

    Args:
        points: [B, m].
        centre: c, [B, m] or [m].
        lower: Smallest values, like ``centre``.
        upper: Largest values.
        radius: Of the balls; ``None`` for boxes alone.
    """
    inside = torch.clamp(points, lower, upper)
    if radius is None:
        return inside
    length = torch.linalg.vector_norm(inside - centre, dim=-1, keepdim=True)
    if bool((length <= radius).all()):
        return inside
    low, high = torch.zeros_like(length), torch.ones_like(length)
    for _ in range(60):
        middle = (low + high) / 2
        reached = torch.clamp(centre + middle * (points - centre), lower, upper)
        fits = torch.linalg.vector_norm(reached - centre, dim=-1, keepdim=True) <= radius
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return torch.where(length <= radius, inside, torch.clamp(centre + low * (points - centre), lower, upper))


def inward(lower: torch.Tensor, upper: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds rounded to numbers of ``dtype`` that lie between them."""
    return -_rounded_down(-lower, dtype), _rounded_down(upper, dtype)


def _rounded_down(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    near = values.to(dtype)
    below = torch.nextafter(near, torch.full_like(near, -math.inf))
    return torch.where(near.to(values.dtype) > values, below, near).to(values.dtype)
