"""Parameters of the projection probe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

import equivengine as eqv


class ProjectionParams(eqv.Params):
    """Parameters of `Projection`."""

    basis: Literal["references", "images"] = Field(
        "references", description="Whose components: of random references, or of the images of the set."
    )
    components: int = Field(3, ge=1, le=64, description="Components to keep coordinates of; count.")
    references: int = Field(200, ge=3, le=100_000, description="Random images of the whole (target) set; count.")
    resamples: int = Field(500, ge=50, le=100_000, description="Resamples of images behind intervals; count.")
    pairs: int = Field(4, ge=0, le=10_000, description="Random ordered pairs to match; count, 0 for none.")
    other_class: bool | None = Field(
        None, description="Only pairs of different labels; null: where all labels of the set are known."
    )
    tolerance: float = Field(
        1e-3, gt=0, lt=1, description="Matched means so near to the target; over the median distance of references."
    )
    solver: Literal["lm", "minimal"] = Field(
        "lm",
        description='"lm": any match near the original; "minimal": the smallest L2 change found, many times dearer.',
    )
    max_jacobians: int | None = Field(
        None, ge=1, le=10_000, description="Linearizations for each pair; count, at most; null: 30, 120 for minimal."
    )
    together: int = Field(16, ge=1, le=1000, description="Pairs that are matched in one batch; count.")
