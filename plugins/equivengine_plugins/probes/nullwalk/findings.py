"""What a reader should take away."""

from __future__ import annotations

from collections.abc import Mapping

import equivengine as eqv


def findings(summary: Mapping[str, eqv.Scalar]) -> list[str]:
    """Sentences from the scalars of one walk, or their medians."""
    if "between_largest" not in summary:  # no step was made
        return []
    return [
        f"Without a leap, an image went {summary['furthest_relative']} times as far as two images are apart (median, "
        f"L2) while its embedding stayed within {summary['between_largest']} of their distance, also between points.",
        f"The same moves with shuffled pixels take the embedding {summary['drift_shuffled']} of that distance away.",
    ]
