"""Parameters of the nullwalk probe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

import equivengine as eqv


class NullWalkParams(eqv.Params):
    """Parameters of `NullWalk`."""

    direction: Literal["random", "target"] = Field(
        "random", description='"random": along a random direction; "target": towards a second image.'
    )
    steps: int = Field(20, ge=1, le=10_000, description="Steps; count, at most.")
    tolerance: float = Field(
        1e-3,
        gt=0,
        lt=1,
        description="Largest |f(z) - f(x)| on the way, over the median distance of reference pairs.",
    )
    step: float = Field(
        0.03, gt=0, le=1, description="First wanted step: rms change of a pixel; share of the input range."
    )
    box: bool = Field(True, description="Stay within the input range of the model.")
    jacobian: Literal["auto", "dense", "products"] = Field(
        "auto", description='"dense" writes J out, "products" solves by conjugate gradients, "auto": dense up to 2 GiB.'
    )
    between: int = Field(7, ge=1, le=1000, description="Points of each segment at which f is evaluated again; count.")
    stored: int = Field(9, ge=2, le=10_000, description="Points of the walk to store, start and end included; count.")
    references: int = Field(64, ge=2, le=2000, description="Images whose distances are the yardstick; count.")
    together: int = Field(8, ge=1, le=1024, description="Walks that are made in one call; count, at most.")
