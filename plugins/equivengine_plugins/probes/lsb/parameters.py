"""Parameters of the lsb probe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

import equivengine as eqv


class LsbParams(eqv.Params):
    """Parameters of `Lsb`."""

    levels: int = Field(1, ge=1, le=8, description="By how much a pixel may change; levels of 8 bits.")
    draws: int = Field(64, ge=2, le=100_000, description="Random changes of each kind; count.")
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
