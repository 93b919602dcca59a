"""What a reader should take away."""

from __future__ import annotations

from collections.abc import Mapping

import equivengine as eqv


def findings(summary: Mapping[str, eqv.Scalar]) -> list[str]:
    """Sentences from the scalars of one set."""
    shares = [scalar.value for name, scalar in summary.items() if name in ("explained_1", "explained_2")]
    said = []
    if len(shares) == 2:
        said.append(
            f"The two components that are drawn hold {sum(shares):.0%} of the variance of the embeddings; 90% take "
            f"{summary['rank_90']} components."
        )
    if "relative_after" in summary:
        said.append(
            f"Matching moved embeddings from {summary['relative_before']} to {summary['relative_after']} of the "
            "yardstick from their targets (medians)."
        )
    return said
