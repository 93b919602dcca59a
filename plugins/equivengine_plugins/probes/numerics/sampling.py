"""Directions for the radius of linearization: all that were asked for, or until the median of their radii is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import equivengine as eqv
from equivengine.stopping import Effort, MedianRule, blocks
from equivengine_plugins.probes.numerics.evaluation import random_units
from equivengine_plugins.probes.numerics.radius import Linearisation, crossing, measure_linearisation

if TYPE_CHECKING:
    from equivengine_plugins.probes.numerics.parameters import NumericsParams


@dataclass(frozen=True)
class Sampling:
    """How directions of one image are drawn.

    Attributes:
        task: The task.
        operator: The float64 Jacobian at x.
        lengths: |d|, [L].
    """

    task: eqv.ProbeTask[NumericsParams]
    operator: eqv.JacobianOperator
    lengths: np.ndarray

    def sample(
        self,
        kind: str,
        cap: int,
        space: eqv.linalg.Subspace | None,
        scale: Callable[[Linearisation], float],
    ) -> tuple[Linearisation, Effort | None]:
        """The linear approximation along directions of one kind, and how well the median of their radii is known.

        Args:
            kind: ``"random"``, ``"normal"`` or ``"null"``.
            cap: How many directions; with a tolerance, at most.
            space: The row space that normal ones lie in, or null ones are orthogonal to.
            scale: What errors are held against per unit of length, from what has been measured of this kind.
        """
        params = self.task.params
        rule = MedianRule(params.tolerance, cap) if params.tolerance is not None else None
        parts: list[Linearisation] = []
        effort = None
        for start, stop in blocks(cap):
            directions = random_units(
                self.task, f"radius-{kind}", stop - start, self.operator.shape[1], space, kind, start=start
            )
            parts.append(measure_linearisation(self.task, self.operator, directions, self.lengths))
            if rule is not None:
                found = Linearisation.join(parts)
                radii, _ = crossing(found.lengths, found.relative(scale(found)), params.level)
                effort = rule.judge(radii)
                if effort.finished:
                    break
        return Linearisation.join(parts), effort


def rms(along: Linearisation) -> float:
    """Rms of |J d| over the unit directions of a kind."""
    return float(np.sqrt(np.mean(along.slope**2)))
