"""Parameters of the numerics probe."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

import equivengine as eqv

#: Directions of each kind that a tolerance may take where their number is not given.
CAP = 1024


class NumericsParams(eqv.Params):
    """Parameters of `Numerics`."""

    directions: int = Field(
        12, ge=1, le=100_000, description="Random directions along which differences are held against JVPs; count."
    )
    h_min: float = Field(1e-8, gt=0, le=1e3, description="Smallest step size h; L2 length in [0, 1] pixel units.")
    h_max: float = Field(10.0, gt=0, le=1e6, description="Largest step size h; L2 length in [0, 1] pixel units.")
    steps: int = Field(37, ge=5, le=1000, description="Step sizes, equally spaced in log h; count.")
    radius_directions: int = Field(
        12,
        ge=1,
        le=100_000,
        description="Random directions for the radius of linearization; count. With tolerance at most; 1024 if unset.",
    )
    normal_directions: int = Field(
        12, ge=0, le=100_000, description="The same, within the row space of J; count. With null: needs all of J."
    )
    null_directions: int = Field(12, ge=0, le=100_000, description="The same, within the null space of J; count.")
    tolerance: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Draw directions of each kind until the 95% interval of the median of their radii is so narrow: "
        "half-width over the median. Unset: draw all.",
    )
    length_min: float | None = Field(
        None, gt=0, description="Shortest |d| of the radius; L2 length in [0, 1] pixel units; unset: length_max / 1e5."
    )
    length_max: float | None = Field(
        None, gt=0, description="Longest |d|; unset: the diagonal of the input box, sqrt(m) times its width."
    )
    lengths: int = Field(26, ge=3, le=1000, description="Lengths |d|, equally spaced in log |d|; count.")
    level: float = Field(0.1, gt=0, lt=1, description="Relative linearization error that ends the radius; ratio.")

    @model_validator(mode="before")
    @classmethod
    def _room_for_a_tolerance(cls, given: Any) -> Any:
        """With a tolerance, counts are caps; the default ones would end nearly every search."""
        if isinstance(given, dict) and given.get("tolerance") is not None:
            return {"radius_directions": CAP, "normal_directions": CAP, "null_directions": CAP, **given}
        return given

    @model_validator(mode="after")
    def _ordered(self) -> NumericsParams:
        if self.h_min >= self.h_max:
            raise ValueError("h_min must be smaller than h_max")
        if self.length_min is not None and self.length_max is not None and self.length_min >= self.length_max:
            raise ValueError("length_min must be smaller than length_max")
        return self
