"""Low-dimensional projections of embeddings: principal components, with matched pairs among them.

What looks like the original lies where the target lies: the picture of an equivalence class in the embedding space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.projection.parameters import ProjectionParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EQUIVENGINE_API = (1, 0)


class Projection(eqv.Probe[ProjectionParams]):
    """Principal components of embeddings (Pearson, 1901; Jolliffe, Principal Component Analysis, 2002)."""

    name = "projection"
    version = "1"
    summary = "principal components of the embeddings, and where matched inputs land among them"
    arity = "set"
    labelled = True
    Params = ProjectionParams

    @classmethod
    def references_of(cls, params: ProjectionParams) -> int:
        """The population that components are made from, and that distances of matched pairs are held against."""
        return params.references if params.basis == "references" or params.pairs else 0

    def run(self, task: eqv.ProbeTask[ProjectionParams]) -> eqv.ProbeResult:
        """Measure one set."""
        from equivengine_plugins.probes.projection.measure import measure
        from equivengine_plugins.probes.projection.result import make_result

        return make_result(task, measure(task))

    def findings(self, summary: Mapping[str, eqv.Scalar], params: ProjectionParams) -> list[str]:
        """Sentences for the top of a report."""
        from equivengine_plugins.probes.projection.findings import findings

        return findings(summary)

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Scatter of the first two components with arrows of matched pairs, and scree plot, from stored arrays."""
        from equivengine_plugins.probes.projection.drawing import draw

        return draw(result)


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[ProjectionParams]]]:
    """Register `Projection`."""
    return [Projection]
