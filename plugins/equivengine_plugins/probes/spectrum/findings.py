"""What a reader should take away."""

from __future__ import annotations

from collections.abc import Mapping

import equivengine as eqv


def findings(summary: Mapping[str, eqv.Scalar]) -> list[str]:
    """Sentences from the scalars of one image, or their medians; leading values alone leave little to say."""
    if "s_1" not in summary:
        return []
    said = [f"The largest singular value of the Jacobian is {summary['s_1']}."]
    if "rank_90" in summary and "rank" in summary:
        said = [
            f"The largest singular value of the Jacobian is {summary['s_1']}; of {summary['rank']} directions that "
            f"change the embedding, {summary['rank_90']} hold 90% of |J|_F^2."
        ]
    if "null_share" in summary:
        said.append(
            f"To first order, {summary['null_share']} of the input space changes nothing: the null space has "
            f"{summary['null_dim']} dimensions."
        )
    return said
