"""What a reader should take away."""

from __future__ import annotations

from collections.abc import Mapping

import equivengine as eqv


def findings(summary: Mapping[str, eqv.Scalar]) -> list[str]:
    """Sentences from the scalars of one image, or their medians."""
    return [
        f"A change that one rounding to 8 bits can make moves the embedding by {summary['relative_uniform']} of the "
        f"median distance between images where it is random, and by at least {summary['relative_worst']} where it is "
        f"chosen: {summary['worst_over_uniform']} times as far.",
        f"Truncating instead of rounding, as some savers do, moves it by {summary['relative_truncation']}.",
    ]
