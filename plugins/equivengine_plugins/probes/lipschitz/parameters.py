"""Parameters of the lipschitz probe."""

from __future__ import annotations

from pydantic import Field

import equivengine as eqv


class LipschitzParams(eqv.Params):
    """Parameters of `Lipschitz`."""

    radius_l2: float = Field(
        0.5, ge=0, le=1e6, description="Radius of the L2 ball; length in [0, 1] pixel units; 0 leaves the ball out."
    )
    radius_linf: float = Field(
        8 / 255, ge=0, le=1e6, description="Radius of the L-infinity ball; [0, 1] pixel units; 0 leaves the ball out."
    )
    box: bool = Field(False, description="Keep points within the input range as well.")
    starts: int = Field(
        3, ge=1, le=1000, description="Starting points: x, then random points of the ball; count. They share a pass."
    )
    steps: int = Field(20, ge=1, le=1000, description="Steps of projected ascent from each start; count.")
    tolerance: float = Field(
        0.01, gt=0, lt=1, description="Relative rise of the largest s_1 over the last 5 steps that counts as converged."
    )
