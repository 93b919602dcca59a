"""Parameters of the lsb probe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

import equivengine as eqv

#: Draws of each kind that a tolerance may take where their number is not given.
CAP = 4096


class LsbParams(eqv.Params):
    """Parameters of `Lsb`."""

    levels: int = Field(1, ge=1, le=8, description="By how much a pixel may change; levels of 8 bits.")
    draws: int = Field(
        64,
        ge=2,
        le=100_000,
        description="Random changes of each kind; count. With draws_tolerance at most; 4096 if unset.",
    )
    draws_tolerance: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Draw random changes until the 95% interval of the median of each kind is so narrow: half-width "
        "over the median. Unset: draw all.",
    )
    noise: float = Field(
        1e-7,
        gt=0,
        le=1e-4,
        description="What truncation meets: standard deviation of the noise on x; share of the input range.",
    )
    pixels: int = Field(16, ge=1, le=10_000, description="Pixels to try alone, the most sensitive by J first; count.")
    method: Literal["auto", "exact", "randomized"] = Field(
        "auto", description='"exact" writes J out; "randomized" finds 8 singular vectors; "auto": exact up to 64 MiB.'
    )
    starts: int = Field(16, ge=1, le=1000, description="Starts of the search within the linear model; count.")
    steps: int = Field(
        20, ge=1, le=1000, description="Steps of the search on the encoder itself, from the 8 best; count, at most."
    )
    tolerance: float = Field(
        1e-3, gt=0, lt=1, description="That search ends where a step gains less than this, relative."
    )
    references: int = Field(
        64, ge=0, le=2000, description="Images whose distances changes are held against; count. 0: |f(x)| instead."
    )

    @model_validator(mode="before")
    @classmethod
    def _room_for_a_tolerance(cls, given: Any) -> Any:
        """With a tolerance, the count is a cap; the default one would end nearly every search."""
        if isinstance(given, dict) and given.get("draws_tolerance") is not None:
            return {"draws": CAP, **given}
        return given
