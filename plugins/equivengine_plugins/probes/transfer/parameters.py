"""Parameters of the transfer probe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

import equivengine as eqv

HeadName = Literal["own", "mean", "mean_cosine", "nn", "linear", "text"]


class TransferParams(eqv.Params):
    """Parameters of `Transfer`."""

    pairs: int = Field(12, ge=1, le=10_000, description="Random ordered pairs (original, target) of the set; count.")
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
    references: int = Field(
        200, ge=2, le=100_000, description="Images that heads are made from and distances held against; count."
    )
    heads: tuple[HeadName, ...] | None = Field(
        None, min_length=1, description="Heads to ask, separated by commas; null: all that can be had."
    )
    prompts: tuple[str, ...] | None = Field(
        None, min_length=2, description="Prompts of head text, one for each class; null: template and class names."
    )
    template: str = Field("a photo of a {}.", description="Prompt of a class; {} stands for its name.")
    temperature: float | None = Field(
        None,
        gt=0,
        le=1e4,
        description="Factor of cosines before softmax; null: the model's logit_scale where it is recorded, else 100.",
    )
    shown: int = Field(4, ge=0, le=64, description="Pairs to show as a picture; count.")

    @field_validator("heads", mode="before")
    @classmethod
    def _separated_by_commas(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("heads", "prompts")
    @classmethod
    def _no_two_alike(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("all different")
        return value

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        if "{}" not in value:
            raise ValueError("a text with {} where the name of a class goes")
        return value
