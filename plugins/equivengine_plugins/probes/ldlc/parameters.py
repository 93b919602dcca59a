"""Parameters of the ldlc probe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

import equivengine as eqv
from equivengine.stopping import FEWEST

#: Directions of each kind that a tolerance may take where their number is not given.
CAP = 4096
#: The ratio that may have a tolerance of its own.
RATIO = "random_over_null"
#: Parameters that end the drawing of directions.
TOLERANCES = ("tolerance", "ratio_tolerance")


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
    ratio_tolerance: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Draw random and null-space directions until the 95% interval of random_over_null is so narrow: "
        "half-width over the ratio. Unset: draw all, or as tolerance says.",
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
        if isinstance(given, dict) and any(given.get(name) is not None for name in TOLERANCES):
            return {"directions": CAP, "null_directions": CAP, **given}
        return given

    @field_validator("ratio_tolerance")
    @classmethod
    def _of_two_samples(cls, value: float | None, info: ValidationInfo) -> float | None:
        for name in ("directions", "null_directions"):
            if value is not None and info.data.get(name, FEWEST) < FEWEST:
                raise ValueError(f"unset where {name} is less than {FEWEST}: a ratio takes both kinds of directions")
        return value

    @model_serializer(mode="wrap")
    def _as_before_it_was_there(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without ``ratio_tolerance`` where it is unset: units are known by their parameters."""
        data: dict[str, Any] = serialize(self)
        if data.get("ratio_tolerance") is None:
            data.pop("ratio_tolerance", None)
        return data

    @field_validator("grid")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that alpha = 0 is a grid point")
        return value
