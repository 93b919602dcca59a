"""What a reader should take away."""

from __future__ import annotations

from collections.abc import Mapping

import equivengine as eqv
from equivengine_plugins.probes.ldlc.parameters import LdlcParams

#: Null values below this multiple of their noise floor say nothing.
OVER_NOISE = 3
#: Counts of a run with a tolerance.
DRAWN = {"directions_random": "random ones", "directions_null": "of the null space"}


def findings(summary: Mapping[str, eqv.Scalar], params: LdlcParams) -> list[str]:
    """Sentences from the scalars of one image, or their medians."""
    said = []
    null, floor = summary["null"].value, summary["noise_null_tangent"].value
    if null > OVER_NOISE * floor:
        said.append(
            f"Within {params.eps:g} of an image, a random direction of the null space changes the embedding "
            f"{summary['random_over_null']} times less than a random direction does. What is left is curvature: "
            f"{summary['null_curvature']} against a noise floor of {summary['noise_null_tangent']}."
        )
    elif null == null:
        said.append(
            f"Along random directions of the null space only roundoff was seen: {summary['null']}, the noise floor "
            f"being {summary['noise_null_tangent']}."
        )
    first = summary["gradient_first_over_random"]
    if first.value == first.value:
        said.append(
            f"The first step towards another image's embedding changes it {first} times as fast as a random direction."
        )
    said.append(
        f"The fastest direction changes it by {summary['s_1']}; a random one by {summary['expected_random']} (rms)."
    )
    drawn = [f"{summary[name]} {words}" for name, words in DRAWN.items() if name in summary]
    if drawn:
        said.append(
            f"Directions were drawn until their medians were known within {params.tolerance:.2g}, relative: "
            f"{' and '.join(drawn)}."
        )
    return said
