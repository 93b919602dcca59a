"""Different inputs of one embedding: an original is changed until its embedding is that of a target.

By Levenberg-Marquardt (the default), by the gradient descent of the paper (Eq. 3, 4), or by the smallest change that
does it; the target is another image, or a text where the encoder has a text tower. What was found is judged by fresh
evaluations, as float and as the PNG file that it becomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import equivengine as eqv
from equivengine_plugins.probes.isolation import isolated
from equivengine_plugins.probes.match.parameters import MatchParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EQUIVENGINE_API = (1, 0)


class Match(eqv.Probe[MatchParams]):
    """How near the embedding of an original can be brought to a target's, at what change of the image and what cost."""

    name = "match"
    version = "1"
    summary = "changes an original until it has the embedding of a target: how near, how small a change, at what cost"
    arity = "pair"
    labelled = True
    Params = MatchParams

    @classmethod
    def arity_of(cls, params: MatchParams) -> Literal["one", "pair"]:
        """Originals alone where the target is a text."""
        return "pair" if params.text is None else "one"

    @classmethod
    def batch_of(cls, params: MatchParams) -> int:
        """``together``."""
        return params.together

    @classmethod
    def references_of(cls, params: MatchParams) -> int:
        """``references``."""
        return params.references

    @classmethod
    def headlines(cls, params: MatchParams) -> Mapping[str, str]:
        """The smallest change, where that was asked for; what is left of the distance otherwise."""
        if params.solver == "minimal-linf":
            return {"linf_matched": "smallest L-infinity change"}
        if params.solver == "minimal-l2":
            return {"l2_relative": "smallest L2 change / between images"}
        return {"relative_matched": "distance left by matching", "l2_relative": "L2 change / between images"}

    def run(self, task: eqv.ProbeTask[MatchParams]) -> eqv.ProbeResult:
        """Match one pair."""
        return self.run_batch([task])[0]

    def run_batch(self, tasks: Sequence[eqv.ProbeTask[MatchParams]]) -> Sequence[eqv.ProbeResult]:
        """Match all pairs in one call of the solver; one by one where that fails, so that only the culprits fail."""
        from equivengine_plugins.probes.match.together import match

        return isolated(match, tasks)

    def findings(self, summary: Mapping[str, eqv.Scalar], params: MatchParams) -> list[str]:
        """Sentences for the top of a report."""
        from equivengine_plugins.probes.match.findings import findings

        return findings(summary, params)

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Images, course and cost of one pair, from the arrays of a result (or of a stored unit)."""
        from equivengine_plugins.probes.match.drawing import draw

        return draw(result)

    def overview(self, results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> Mapping[str, Figure]:
        """Courses of all pairs and settings, distances before and after, images, from stored arrays."""
        from equivengine_plugins.probes.match.overview import draw_overview

        return draw_overview(results)


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[MatchParams]]]:
    """Register `Match`."""
    return [Match]
