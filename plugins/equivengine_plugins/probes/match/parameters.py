"""Parameters of the match probe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

import equivengine as eqv

Solver = Literal["lm", "gd", "minimal-l2", "minimal-linf"]

#: Relative distance at which each solver stops. lm: within reach of fp32 wherever the target is reachable at all.
#: The smallest change is judged at a distance, and every decade costs it dozens of Jacobians; gradient descent gains a
#: decade in thousands of steps.
TOLERANCES: dict[str, float] = {"lm": 1e-6, "minimal-l2": 2e-3, "minimal-linf": 2e-3, "gd": 3e-2}
#: What gradient descent takes where nothing is said.
RATE, STEPS = 1e-2, 3000


class MatchParams(eqv.Params):
    """Parameters of `Match`."""

    solver: Solver = Field(
        "lm",
        description='"lm" (Levenberg-Marquardt), "gd" (gradient descent, as the paper), "minimal-l2" or "minimal-linf" '
        '(the smallest change; "minimal" is minimal-l2).',
    )
    tolerance: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Distance to stop at, over the median distance of reference pairs. "
        "Unset: lm 1e-6, or the roundoff of the run if that is more; minimal 2e-3; gd 3e-2.",
    )
    box: bool = Field(True, description="Stay within the input range of the model (for gd see clamp).")
    l2: float | None = Field(None, gt=0, description="Largest L2 change of an input; input units. Unset: any.")
    linf: float | None = Field(None, gt=0, description="Largest change of one pixel; input units. Unset: any.")
    max_jacobians: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Jacobians for each pair, at most; count. Unset: the solver's own, 60 - 120.",
    )
    jacobian: Literal["auto", "dense", "products"] = Field(
        "auto", description='"dense" writes J out, "products" solves by conjugate gradients, "auto" takes the cheaper.'
    )
    quantize: bool = Field(False, description="Then match again on 8-bit levels, so that the PNG file matches.")
    rate: float | None = Field(
        None, gt=0, le=1e6, description="gd: learning rate, for 1/2 |r|^2; input^2 / embedding^2. Unset: 0.01."
    )
    steps: int | None = Field(None, ge=1, le=10_000_000, description="gd: steps, at most; count. Unset: 3000.")
    clamp: bool = Field(False, description="gd: clamp to the input range of the model after each step.")
    cosine: float | None = Field(
        None, gt=0, lt=1, description="gd: stop only where the cosine to the target exceeds this too."
    )
    loss: Literal["sum", "mean"] | None = Field(
        None,
        description='gd: "sum", 1/2 |r|^2 (Eq. 3 of the paper), or "mean", |r|^2 / n (the code of its authors). '
        "Unset: sum.",
    )
    text: str | None = Field(
        None,
        min_length=1,
        description="Match the embedding of this text, scaled to |f(original)|, instead of an image.",
    )
    references: int = Field(64, ge=2, le=2000, description="Images whose distances are the yardstick; count.")
    together: int = Field(16, ge=1, le=1024, description="Pairs that are matched in one call; count, at most.")
    keep_trace: bool = Field(True, description="Store distance, cosine, change and cost after every step.")

    @field_validator("solver", mode="before")
    @classmethod
    def _short_name(cls, value: Any) -> Any:
        return "minimal-l2" if value == "minimal" else value

    @model_validator(mode="after")
    def _consistent(self) -> MatchParams:
        if self.solver == "gd":
            if not self.box:
                raise ValueError("no box with solver=gd: it leaves the input range unless clamp=true")
            if self.max_jacobians is not None or self.jacobian != "auto":
                raise ValueError("no max_jacobians and no jacobian with solver=gd: it takes steps and rate")
        else:
            given = [name for name in ("rate", "steps", "cosine", "loss") if getattr(self, name) is not None]
            given += ["clamp"] * self.clamp
            if given:
                raise ValueError(f"solver=gd with {' and '.join(given)}: the other solvers know no such thing")
        if self.solver == "minimal-linf" and self.jacobian == "products":
            raise ValueError("jacobian=auto or dense with solver=minimal-linf: it writes J out")
        if self.solver == "minimal-linf" and self.max_jacobians == 1:
            raise ValueError("max_jacobians of at least 2 with solver=minimal-linf")
        return self

    @property
    def relative(self) -> float:
        """Relative distance to stop at."""
        return TOLERANCES[self.solver] if self.tolerance is None else self.tolerance

    @property
    def bounded(self) -> bool:
        """Whether inputs stay within the input range."""
        return self.clamp if self.solver == "gd" else self.box
