"""Parameters of the path probe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

import equivengine as eqv


class PathParams(eqv.Params):
    """Parameters of `Path`."""

    points: int = Field(33, ge=2, le=100_000, description="Points of straight lines, both ends included; count.")
    steps: int = Field(12, ge=1, le=10_000, description="Steps of the paths within classes; count.")
    between: int = Field(3, ge=1, le=1000, description="Points of each of these steps to look at besides; count.")
    tolerance: float = Field(
        1e-3, gt=0, lt=1, description="Distance to match to, over the median distance of reference pairs."
    )
    connected: float = Field(
        1e-2,
        gt=0,
        lt=1,
        description="Largest |f(y) - f(x)| between points of a path that is called connected, over that median.",
    )
    solver: Literal["lm", "minimal-l2"] = Field(
        "lm", description='What matches the original: "lm" (Levenberg-Marquardt) or "minimal-l2" (smallest change).'
    )
    box: bool = Field(True, description="Stay within the input range of the model.")
    max_jacobians: int = Field(
        60, ge=1, le=100_000, description="Jacobians for one match, and for one point of a path, at most; count."
    )
    jacobian: Literal["auto", "dense", "products"] = Field(
        "auto", description='"dense" writes J out, "products" solves by conjugate gradients, "auto" takes the cheaper.'
    )
    rank: int = Field(
        16, ge=1, le=10_000, description="Leading right singular vectors that span a normal space; count, at most n."
    )
    spaces: int = Field(
        5, ge=2, le=1000, description="Points of each path whose normal spaces are compared, ends included; count."
    )
    stored: int = Field(9, ge=2, le=10_000, description="Points of each path to store, ends included; count.")
    references: int = Field(64, ge=2, le=2000, description="Images whose distances are the yardstick; count.")
    together: int = Field(8, ge=1, le=1024, description="Pairs that are matched in one call; count, at most.")
