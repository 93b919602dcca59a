"""Classification before and after matching, with classifiers that nobody touched.

Inputs are matched to the embeddings of others, without any use of a classifier. Then everything that one would build on
the embedding says what it sees: the encoder's own head, nearest class means, the nearest neighbor, a linear head,
zero-shot prompts. What has the target's embedding has the target's class, for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.transfer.parameters import TransferParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EQUIVENGINE_API = (1, 0)


class Transfer(eqv.Probe[TransferParams]):
    """Whether classes follow the embedding: downstream heads before and after matching, on random pairs of a set."""

    name = "transfer"
    version = "2"
    summary = "classes before and after matching, by several downstream heads, on random pairs of the image set"
    arity = "set"
    labelled = True
    Params = TransferParams

    @classmethod
    def references_of(cls, params: TransferParams) -> int:
        """What heads are made from, and what distances are held against."""
        return params.references

    @classmethod
    def headlines(cls, params: TransferParams) -> Mapping[str, str]:
        """The share of pairs on which every head takes the matched image for its target."""
        return {"agreement": "transfer rate", "agreement_png": "transfer rate, 8-bit files"}

    def run(self, task: eqv.ProbeTask[TransferParams]) -> eqv.ProbeResult:
        """Measure one set."""
        from equivengine_plugins.probes.transfer.measure import measure
        from equivengine_plugins.probes.transfer.result import make_result

        return make_result(task, measure(task))

    def findings(self, summary: Mapping[str, eqv.Scalar], params: TransferParams) -> list[str]:
        """Sentences for the top of a report."""
        from equivengine_plugins.probes.transfer.findings import findings

        return findings(summary)

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Matrices of class probabilities for each head, and rates of success, from stored arrays."""
        from equivengine_plugins.probes.transfer.drawing import draw

        return draw(result)


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[TransferParams]]]:
    """Register `Transfer`."""
    return [Transfer]
