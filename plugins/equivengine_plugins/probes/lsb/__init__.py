"""Sensitivity of the embedding to one 8-bit level: what the last bit of an image file is worth.

A file holds levels k / 255. Pixels are moved by at most so many levels, at random, by truncating where one should
round, one at a time, and as badly as a search can find; |f(x + d) - f(x)| is measured at the moved image itself and
stands beside the linear prediction |J d|.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.lsb.parameters import LsbParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EQUIVENGINE_API = (1, 0)


class Lsb(eqv.Probe[LsbParams]):
    """How far the embedding moves when pixels change by at most one level: at random, by truncation, at worst."""

    name = "lsb"
    version = "1"
    summary = "change of the embedding when pixels move by one 8-bit level: random, truncated, one pixel, worst found"
    arity = "one"
    labelled = True
    Params = LsbParams

    @classmethod
    def references_of(cls, params: LsbParams) -> int:
        """``references``."""
        return params.references

    @classmethod
    def headlines(cls, params: LsbParams) -> Mapping[str, str]:
        """How far one rounding to 8 bits moves an embedding, chosen and at random."""
        return {"relative_worst": "worst 8-bit rounding", "relative_uniform": "random 8-bit rounding"}

    def run(self, task: eqv.ProbeTask[LsbParams]) -> eqv.ProbeResult:
        """Measure one image."""
        from equivengine_plugins.probes.lsb.measure import measure

        return measure(task)

    def findings(self, summary: Mapping[str, eqv.Scalar], params: LsbParams) -> list[str]:
        """Sentences for the top of a report."""
        from equivengine_plugins.probes.lsb.findings import findings

        return findings(summary)

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Histogram of random changes and map of sensitivities, from the arrays of a result (or of a stored unit)."""
        from equivengine_plugins.probes.lsb.drawing import draw

        return draw(result)


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[LsbParams]]]:
    """Register `Lsb`."""
    return [Lsb]
