"""Walks within one equivalence class: how far an input can go while its embedding stays.

From x along the null space of J(z), back onto f(z) = f(x), again and again, within the pixel box. Every point is within
a tolerance of f(x), and so is every straight segment between two points: what is found is connected with x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import equivengine as eqv
from equivengine_plugins.probes.isolation import isolated
from equivengine_plugins.probes.nullwalk.parameters import NullWalkParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EQUIVENGINE_API = (1, 0)


class NullWalk(eqv.Probe[NullWalkParams]):
    """How far an input can go within its equivalence class, along a random direction or towards another image."""

    name = "nullwalk"
    version = "1"
    summary = "walks along the null space of J while the embedding stays: how far, how connected, against controls"
    arity = "one"
    labelled = True
    Params = NullWalkParams

    @classmethod
    def arity_of(cls, params: NullWalkParams) -> Literal["one", "pair"]:
        """Pairs (start, goal) where walks go towards a target."""
        return "pair" if params.direction == "target" else "one"

    @classmethod
    def batch_of(cls, params: NullWalkParams) -> int:
        """``together``."""
        return params.together

    @classmethod
    def references_of(cls, params: NullWalkParams) -> int:
        """``references``."""
        return params.references

    @classmethod
    def headlines(cls, params: NullWalkParams) -> Mapping[str, str]:
        """How far an input went while its embedding stayed."""
        return {"furthest_relative": "null walk / between images"}

    def run(self, task: eqv.ProbeTask[NullWalkParams]) -> eqv.ProbeResult:
        """Walk from one input."""
        return self.run_batch([task])[0]

    def run_batch(self, tasks: Sequence[eqv.ProbeTask[NullWalkParams]]) -> Sequence[eqv.ProbeResult]:
        """Walk from all inputs at once; one by one where that fails, so that only the culprits fail."""
        from equivengine_plugins.probes.nullwalk.measure import measure

        return isolated(measure, tasks)

    def findings(self, summary: Mapping[str, eqv.Scalar], params: NullWalkParams) -> list[str]:
        """Sentences for the top of a report."""
        from equivengine_plugins.probes.nullwalk.findings import findings

        return findings(summary)

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Distance and drift over steps, and a strip of images, from the arrays of a result (or of a stored unit)."""
        from equivengine_plugins.probes.nullwalk.drawing import draw

        return draw(result)

    def overview(self, results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> Mapping[str, Figure]:
        """Distance and drift of all walks, from stored arrays."""
        from equivengine_plugins.probes.nullwalk.drawing import draw_overview

        return draw_overview(results)


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[NullWalkParams]]]:
    """Register `NullWalk`."""
    return [NullWalk]
