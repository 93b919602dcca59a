"""What a reader should take away."""

from __future__ import annotations

from collections.abc import Mapping

import equivengine as eqv


def findings(summary: Mapping[str, eqv.Scalar]) -> list[str]:
    """Sentences from the scalars of one set of pairs."""
    said = [
        f"Of {summary['converged'].n} pairs drawn at random, a share of {summary['converged']} was matched. The "
        f"median embedding came to {summary['relative_matched']} of the {summary['yardstick'].description}."
    ]
    if "agreement" in summary:
        said.append(
            f"For a share of {summary['agreement']} of the pairs all downstream heads, which nobody touched, answer "
            "for the matched image as for its target."
        )
    return said
