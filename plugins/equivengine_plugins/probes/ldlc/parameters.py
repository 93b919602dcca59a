"""Parameters of the ldlc probe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

import equivengine as eqv

#: Directions of each kind that a tolerance may take where their number is not given.
CAP = 4096


class LdlcParams(eqv.Params):
    """Parameters of `Ldlc`."""

    directions: int = Field(
        64, ge=0, le=1_000_000, description="Random Gaussian directions; count. With tolerance at most; 4096 if unset."
    )
    null_directions: int = Field(
        32,
        ge=0,
        le=1_000_000,
        description="Random null-space directions; count. With tolerance at most; 4096 if unset.",
    )
    tolerance: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Draw random and null-space directions until the 95% interval of the median of each is so narrow: "
        "half-width over the median. Unset: draw all.",
    )
    singular_directions: int = Field(
        100, ge=0, le=100_000, description="Right singular vectors, from the top; count (at most n exist)."
    )
    gradient_steps: int = Field(
        100, ge=0, le=100_000, description="Steps of gradient-descent matching whose directions are measured; count."
    )
    eps: float = Field(1e-4, gt=0, le=10, description="Largest |alpha| of the grid; L2 length in [0, 1] pixel units.")
    grid: int = Field(3, ge=3, le=101, description="Grid points in [-eps, eps]; odd, so that alpha = 0 is one of them.")
    learning_rate: float | None = Field(
        None, gt=0, description="Step of gradient descent on Eq. 3's loss, 1/2 |r|^2; unset: 1 / s_1^2."
    )
    clamp: bool = Field(False, description="Keep matched pixels within the input range.")
    null_precision: Literal["fp64", "same"] = Field(
        "fp64", description='Arithmetic of the null directions: "fp64", or "same" as the rest of the run.'
    )
    noise_directions: int = Field(4, ge=2, le=1000, description="Directions that measure the noise floor; count.")
    together: int = Field(
        1,
        ge=1,
        le=1024,
        description="Pairs whose random directions share a pass; count, at most. Each holds n x m numbers.",
    )

    @model_validator(mode="before")
    @classmethod
    def _room_for_a_tolerance(cls, given: Any) -> Any:
        """With a tolerance, counts are caps; the default ones would end nearly every search."""
        if isinstance(given, dict) and given.get("tolerance") is not None:
            return {"directions": CAP, "null_directions": CAP, **given}
        return given

    @field_validator("grid")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that alpha = 0 is a grid point")
        return value
