"""Parameters of the path probe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

import equivengine as eqv

#: What gradient descent takes where nothing is said, as in the match probe: it gains a decade in thousands of steps.
DESCENT_TOLERANCE, RATE, MAX_STEPS = 3e-2, 1e-2, 3000


class PathParams(eqv.Params):
    """Parameters of `Path`."""

    points: int = Field(33, ge=2, le=100_000, description="Points of straight lines, both ends included; count.")
    steps: int = Field(
        12, ge=0, le=10_000, description="Steps of the paths within classes; count. 0 leaves these paths out."
    )
    between: int = Field(3, ge=1, le=1000, description="Points of each of these steps to look at besides; count.")
    tolerance: float = Field(
        1e-3, gt=0, lt=1, description="Distance to match to, over the median distance of reference pairs."
    )
    match_tolerance: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="The same for the original's match to the target. Unset: tolerance; gd 3e-2, or tolerance if that "
        "is more.",
    )
    connected: float = Field(
        1e-2,
        gt=0,
        lt=1,
        description="Largest |f(y) - f(x)| between points of a path that is called connected, over that median.",
    )
    solver: Literal["lm", "minimal-l2", "gd"] = Field(
        "lm",
        description='What matches the original: "lm" (Levenberg-Marquardt), "minimal-l2" (smallest change) or "gd" '
        "(gradient descent, as the paper). Points of the paths within classes are always matched by lm.",
    )
    rate: float | None = Field(
        None, gt=0, le=1e6, description="gd: learning rate, for 1/2 |r|^2; input^2 / embedding^2. Unset: 0.01."
    )
    max_steps: int | None = Field(
        None, ge=1, le=10_000_000, description="gd: steps of the descent, at most; count. Unset: 3000."
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

    @model_validator(mode="after")
    def _consistent(self) -> PathParams:
        given = [name for name in ("rate", "max_steps") if getattr(self, name) is not None]
        if given and self.solver != "gd":
            raise ValueError(f"solver=gd with {' and '.join(given)}: the other solvers know no such thing")
        return self

    @property
    def match_goal(self) -> float:
        """Relative distance to match the original to."""
        if self.match_tolerance is not None:
            return self.match_tolerance
        return max(self.tolerance, DESCENT_TOLERANCE) if self.solver == "gd" else self.tolerance
