"""Parameters of the spectrum probe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

import equivengine as eqv

#: Cotangents that a tolerance may take where their number is not given.
CAP = 1024


class SpectrumParams(eqv.Params):
    """Parameters of `Spectrum`."""

    rank: int | None = Field(None, ge=1, description="Leading singular values to find; count. Unset: all.")
    tol: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="With rank, the largest error of a value, relative; alone, all values above this fraction of s_1.",
    )
    method: Literal["auto", "exact", "randomized"] = Field(
        "auto", description='"exact" writes J out; "randomized" is block Krylov; "auto" takes the cheaper one.'
    )
    mixed: bool = Field(False, description="Grow the Krylov space with bf16 products; needs rank or tol.")
    vectors: int = Field(0, ge=0, le=10_000, description="Right singular vectors to store, from the top; count.")
    threshold: float | None = Field(
        None, gt=0, lt=1, description="Singular values below this fraction of s_1 count as zero; unset: the resolution."
    )
    compare: bool = Field(False, description="Take pairs (original, target), and compare spectra and normal spaces.")
    matched: Literal["gd", "lm", "minimal-l2"] | None = Field(
        None,
        description="With compare: match the original to the target first, by this solver of the match probe, and "
        "compare it with what was found in place of the target.",
    )
    tolerance: float = Field(
        3e-2,
        gt=0,
        lt=1,
        description="With matched: distance to match to, over the median distance of reference pairs.",
    )
    references: int = Field(
        64, ge=2, le=2000, description="With matched: images whose distances are the yardstick; count."
    )
    angles: int | None = Field(
        None,
        ge=1,
        description="With compare: leading vectors that span what is compared; count. Unset: rank, or all identified.",
    )
    noise_directions: int = Field(
        4, ge=0, le=1000, description="Cotangents that are repeated in float64 to measure the noise of J; count."
    )
    trace_directions: int = Field(
        16,
        ge=4,
        le=10_000,
        description="Cotangents that estimate |J|_F where J was not written out; count. With trace_tolerance at most; "
        "1024 if unset.",
    )
    trace_tolerance: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Draw these cotangents until the 95% interval of |J|_F is so narrow: half-width over |J|_F. Unset: "
        "draw all.",
    )

    @model_validator(mode="before")
    @classmethod
    def _room_for_a_tolerance(cls, given: Any) -> Any:
        """With a tolerance, the count is a cap; the default one would end nearly every search."""
        if isinstance(given, dict) and given.get("trace_tolerance") is not None:
            return {"trace_directions": CAP, **given}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> SpectrumParams:
        partly = self.rank is not None or self.tol is not None
        if not partly and self.method == "randomized":
            raise ValueError("rank or tol with method=randomized: how much is wanted")
        if not partly and self.mixed:
            raise ValueError("rank or tol with mixed=true: the whole spectrum grows no Krylov space")
        if self.mixed and self.method == "exact":
            raise ValueError("method=auto or randomized with mixed=true: the exact way grows no Krylov space")
        if self.rank is None and self.tol is not None and self.threshold is not None and self.threshold < self.tol:
            raise ValueError("a threshold of at least tol: smaller values are not looked for")
        for name in ("angles", "matched"):
            if getattr(self, name) is not None and not self.compare:
                raise ValueError(f"compare=true with {name}")
        if self.angles is not None and self.rank is not None and self.angles > self.rank:
            raise ValueError("no more angles than rank")
        return self
