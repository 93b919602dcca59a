"""Images that an 8-bit file can hold, around one of them: which changes are allowed, and which are largest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

#: The largest level of 8 bits.
TOP = 255


@dataclass(frozen=True)
class Lattice:
    """Images within a budget of levels around one image.

    A *move* is a vector of whole levels [m] (int16). Pixels near the end of the scale may move less to that side.

    Attributes:
        table: The value of each level, [256] float32: what is read from a file, in runs of any precision.
        start: Levels of the image, [m] int16.
        lowest: Most negative allowed move of each pixel, [m] int16.
        highest: Largest allowed move, [m] int16.
    """

    table: torch.Tensor
    start: torch.Tensor
    lowest: torch.Tensor
    highest: torch.Tensor

    @classmethod
    def around(cls, x: torch.Tensor, input_range: tuple[float, float], budget: int) -> Lattice:
        """The lattice around the image nearest to x [m], with moves of at most ``budget`` levels."""
        low, high = input_range
        steps = torch.arange(TOP + 1, dtype=torch.float64, device=x.device) / TOP
        table = (low + (high - low) * steps).to(torch.float32)
        start = nearest(x, input_range).to(torch.int16)
        return cls(table, start, -start.clamp(max=budget), (TOP - start).clamp(max=budget))

    def within(self, budget: int) -> Lattice:
        """The same lattice with moves of at most ``budget`` levels."""
        return replace(self, lowest=self.lowest.clamp(min=-budget), highest=self.highest.clamp(max=budget))

    @property
    def step(self) -> float:
        """One level, in input units."""
        return float(self.table[-1].double() - self.table[0].double()) / TOP

    @property
    def x(self) -> torch.Tensor:
        """The image itself, [m] float32."""
        return self.table[self.start.long()]

    def points(self, moves: torch.Tensor) -> torch.Tensor:
        """Moved images: [B, m] int16 -> [B, m] float32."""
        return self.table[(self.start + moves).long()]

    def changes(self, moves: torch.Tensor) -> torch.Tensor:
        """What moves [B, m] add to the values of the image, as they are after rounding: [B, m] float64."""
        return self.points(moves).double() - self.x.double()

    def clamp(self, moves: torch.Tensor) -> torch.Tensor:
        """The nearest allowed moves: [B, m] -> [B, m] int16."""
        return torch.minimum(torch.maximum(moves.to(torch.int16), self.lowest), self.highest)

    def furthest(self, gradients: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
        """The allowed moves furthest along gradients [B, m]; ``otherwise`` [B, m] says where a gradient vanishes.

        This maximizes the inner product over the box of allowed moves, so that every coordinate is at an end of it.
        """
        return torch.where(gradients > 0, self.highest, torch.where(gradients < 0, self.lowest, otherwise))


def nearest(x: torch.Tensor, input_range: tuple[float, float]) -> torch.Tensor:
    """The level nearest to each value of x, within 0 to 255; int64."""
    low, high = input_range
    return ((x.double() - low) * (TOP / (high - low))).round().clamp(0, TOP).long()


def truncated(x: torch.Tensor, input_range: tuple[float, float]) -> torch.Tensor:
    """The level that truncation gives to each float32 value of x, within 0 to 255; int64.

    In float32, as code that saves images does (``pic.mul(255).byte()`` in torchvision's ``ToPILImage``); what leaves
    the range by less than a level does not wrap around.
    """
    low, high = input_range
    scaled = x if (low, high) == (0.0, 1.0) else (x - low) / (high - low)
    return scaled.mul(TOP).clamp(0, TOP).long()
