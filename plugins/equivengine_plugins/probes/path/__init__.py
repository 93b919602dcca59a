"""What lies between two images: the straight lines, and paths that stay in the class of either.

Along the straight line from an original to the input that matches a target (paper, Fig. 6), and along the line to the
target itself: cosines to both ends, and how straight the embedding's own way is. Along the same line once more, but
matched at each step onto the class of the first, or of the last image (Fig. 7). And how the normal spaces turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.isolation import isolated
from equivengine_plugins.probes.path.parameters import PathParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EQUIVENGINE_API = (1, 0)


class Path(eqv.Probe[PathParams]):
    """Embeddings along straight lines between two images, and along paths within the equivalence class of either."""

    name = "path"
    version = "1"
    summary = "embeddings along straight lines to a match, and along paths that stay in the class of either image"
    arity = "pair"
    labelled = True
    Params = PathParams

    @classmethod
    def batch_of(cls, params: PathParams) -> int:
        """``together``."""
        return params.together

    @classmethod
    def references_of(cls, params: PathParams) -> int:
        """``references``."""
        return params.references

    @classmethod
    def headlines(cls, params: PathParams) -> Mapping[str, str]:
        """How straight the way to a match is for the embedding."""
        return {"line_linearity": "linearity on the way to a match"}

    def run(self, task: eqv.ProbeTask[PathParams]) -> eqv.ProbeResult:
        """Measure one pair."""
        return self.run_batch([task])[0]

    def run_batch(self, tasks: Sequence[eqv.ProbeTask[PathParams]]) -> Sequence[eqv.ProbeResult]:
        """Match all pairs in shared calls; one by one where that fails, so that only the culprits fail."""
        from equivengine_plugins.probes.path.measure import measure

        return isolated(measure, tasks)

    def findings(self, summary: Mapping[str, eqv.Scalar], params: PathParams) -> list[str]:
        """Sentences for the top of a report."""
        from equivengine_plugins.probes.path.findings import findings

        return findings(summary)

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Cosines, angles and images along the paths, from the arrays of a result (or of a stored unit)."""
        from equivengine_plugins.probes.path.drawing import draw

        return draw(result)

    def overview(self, results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> Mapping[str, Figure]:
        """Cosines along the lines and paths of all pairs, from stored arrays."""
        from equivengine_plugins.probes.path.drawing import draw_overview

        return draw_overview(results)


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[PathParams]]]:
    """Register `Path`."""
    return [Path]
