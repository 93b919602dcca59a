"""From parameters to a call of a solver."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.match.parameters import RATE, STEPS, MatchParams

if TYPE_CHECKING:
    import torch

    from equivengine_plugins.probes.match.targets import Pairs


@dataclass(frozen=True)
class Solved:
    """What the solvers found for B pairs.

    Attributes:
        goal: Distance that they were to reach, embedding units.
        region: Where inputs were kept.
        float_: The match as the solver found it.
        lattice: The match on 8-bit levels that began there; None unless asked for.
    """

    goal: float
    region: eqv.matching.Region
    float_: eqv.matching.Matching
    lattice: eqv.matching.Matching | None

    @property
    def x(self) -> torch.Tensor:
        """The inputs that are handed out, [B, *input_shape]."""
        return (self.lattice or self.float_).x


def solve(pairs: Pairs, yardstick: float) -> Solved:
    """Match all pairs in one call.

    Args:
        pairs: Originals and target embeddings.
        yardstick: What relative distances are relative to, embedding units.

    Raises:
        UsageError: If an original lies outside of the input range, or ``quantize`` is asked for where inputs are no
            images.
        NumericsError: If a derivative of one of the pairs is not finite.
    """
    task = pairs.tasks[0]
    params: MatchParams = task.params
    goal = params.relative * yardstick
    low, high = task.encoder.spec.input_range
    if not params.bounded:
        low, high = -math.inf, math.inf
    region = eqv.matching.Region(low, high, l2=params.l2, linf=params.linf)
    given: dict[str, Any] = {"distance": goal, "region": region, "precision": task.precision}
    found = _call(params, task.encoder, pairs, given)
    if not params.quantize:
        return Solved(goal, region, found, None)
    low, high = task.encoder.spec.input_range
    lattice = eqv.matching.to_lattice(
        task.encoder,
        pairs.originals,
        pairs.embeddings,
        start=found.x,
        distance=goal,
        region=eqv.matching.Region(low, high, l2=params.l2, linf=params.linf),
        precision=task.precision,
        jacobian=params.jacobian,
    )
    return Solved(goal, region, found, lattice)


def _call(params: MatchParams, f: eqv.Encoder, pairs: Pairs, given: dict[str, Any]) -> eqv.matching.Matching:
    x, target = pairs.originals, pairs.embeddings
    if params.solver == "gd":
        return eqv.matching.gradient_descent(
            f,
            x,
            target,
            rate=params.rate or RATE,
            steps=params.steps or STEPS,
            cosine=params.cosine,
            loss=params.loss or "sum",
            **given,
        )
    if params.max_jacobians is not None:
        given["max_jacobians"] = params.max_jacobians
    if params.solver == "minimal-l2":
        return eqv.matching.smallest_l2(f, x, target, jacobian=params.jacobian, **given)
    if params.solver == "minimal-linf":
        return eqv.matching.smallest_linf(f, x, target, **given)  # which forms J always
    return eqv.matching.levenberg_marquardt(f, x, target, jacobian=params.jacobian, **given)
