"""Local directional Lipschitz constants (paper, Eq. 7): how fast an embedding can change along four kinds of direction.

For a smooth f the constant along a unit direction d is the supremum of |J(x + a d) d| over |a| <= eps. Two lower bounds
are measured on a symmetric grid of a: the *tangent* estimate, by forward derivatives (no cancellation), and the
*secant* estimate, by difference quotients of neighboring grid points (the largest quotient over all pairs is always
one of neighbors). Where the secant exceeds the tangent, a peak lies between nodes, and the tangent is refined there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.isolation import isolated
from equivengine_plugins.probes.ldlc.parameters import LdlcParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EQUIVENGINE_API = (1, 0)


class Ldlc(eqv.Probe[LdlcParams]):
    """LDLC along random, null-space, singular and matching-gradient directions, with the noise floor beside it."""

    name = "ldlc"
    version = "2"
    summary = "local directional Lipschitz constants: random, null-space, singular and gradient directions"
    arity = "pair"
    Params = LdlcParams

    @classmethod
    def headlines(cls, params: LdlcParams) -> Mapping[str, str]:
        """How many times random directions outrun null ones, and the matching gradient random ones."""
        return {
            "random_over_null": "LDLC, random / null",
            "gradient_first_over_random": "LDLC, gradient / random",
        }

    @classmethod
    def batch_of(cls, params: LdlcParams) -> int:
        """``together``."""
        return params.together

    def run(self, task: eqv.ProbeTask[LdlcParams]) -> eqv.ProbeResult:
        """Measure one original against one target."""
        return self.run_batch([task])[0]

    def run_batch(self, tasks: Sequence[eqv.ProbeTask[LdlcParams]]) -> Sequence[eqv.ProbeResult]:
        """Measure pairs at once; one by one where that fails, so that only the culprits fail."""
        from equivengine_plugins.probes.ldlc.measure import measure

        return isolated(measure, tasks)

    def findings(self, summary: Mapping[str, eqv.Scalar], params: LdlcParams) -> list[str]:
        """Sentences for the top of a report."""
        from equivengine_plugins.probes.ldlc.findings import findings

        return findings(summary, params)

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Distributions of the constants, and those along singular vectors, from the arrays of a result by name."""
        from equivengine_plugins.probes.ldlc.drawing import draw

        return draw(result)

    def overview(self, results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> Mapping[str, Figure]:
        """Distributions over all images, from stored arrays."""
        from equivengine_plugins.probes.ldlc.drawing import draw_overview

        return draw_overview(results)


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[LdlcParams]]]:
    """Register `Ldlc`."""
    return [Ldlc]
