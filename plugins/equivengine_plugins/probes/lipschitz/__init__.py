"""The extended local Lipschitz constant (paper, Eq. 6): s_1 of the Jacobian at x, and its supremum over balls.

The constant of a ball is the smallest L with |f(x + dy) - f(x + dx)| <= L |dy - dx| for all points of the ball. Over a
convex set it equals the supremum of s_1(J(z)) for a smooth f. What is measured is a lower bound: the best value that
projected ascent finds, verified by a difference quotient of two points of the ball.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.lipschitz.parameters import LipschitzParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EQUIVENGINE_API = (1, 0)


class Lipschitz(eqv.Probe[LipschitzParams]):
    """Largest singular value at x and, by projected ascent, over an L2 and an L-infinity ball around x."""

    name = "lipschitz"
    version = "1"
    summary = "local Lipschitz constant: s_1 at the input, and a verified lower bound over balls around it"
    arity = "one"
    Params = LipschitzParams

    @classmethod
    def headlines(cls, params: LipschitzParams) -> Mapping[str, str]:
        """How much faster the fastest direction is within a ball than at its center."""
        return {"ratio_l2": "Lipschitz, L2 ball / image", "ratio_linf": "Lipschitz, L-infinity ball / image"}

    def run(self, task: eqv.ProbeTask[LipschitzParams]) -> eqv.ProbeResult:
        """Measure one input."""
        from equivengine_plugins.probes.lipschitz.search import measure

        return measure(task)

    def findings(self, summary: Mapping[str, eqv.Scalar], params: LipschitzParams) -> list[str]:
        """Sentences for the top of a report."""
        from equivengine_plugins.probes.lipschitz.findings import findings

        return findings(summary, params)

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Paths of s_1, from the arrays of a result (or of a stored unit) by name."""
        from equivengine_plugins.probes.lipschitz.drawing import draw

        return draw(result)

    def overview(self, results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> Mapping[str, Figure]:
        """How far s_1 rises over the balls around all images, from stored arrays."""
        from equivengine_plugins.probes.lipschitz.drawing import draw_overview

        return draw_overview(results)


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[LipschitzParams]]]:
    """Register `Lipschitz`."""
    return [Lipschitz]
