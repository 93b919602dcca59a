"""What a reader should take away."""

from __future__ import annotations

from collections.abc import Mapping

import equivengine as eqv


def findings(summary: Mapping[str, eqv.Scalar]) -> list[str]:
    """Sentences from the scalars of one pair, or their medians."""
    said = [
        f"On the straight line from original to matched the embedding's linearity is {summary['line_linearity']}: 1 "
        "would be a straight course at even speed."
    ]
    if "first_between" in summary:
        said.append(
            "Without leaving the class of the original (largest distance seen "
            f"{summary['first_between']} of the yardstick), a path comes within {summary['first_nearest_share']} of "
            "the distance to the target image."
        )
    return said
