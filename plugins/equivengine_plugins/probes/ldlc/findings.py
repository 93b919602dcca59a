"""What a reader should take away."""

from __future__ import annotations

from collections.abc import Mapping

import equivengine as eqv
from equivengine_plugins.probes.ldlc.parameters import RATIO, LdlcParams

#: Null values below this multiple of their noise floor say nothing.
OVER_NOISE = 3
#: Kinds of direction that a tolerance is about.
DRAWN = {"random": "random directions", "null": "directions of the null space"}


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
    drawn = [
        f"{summary[f'directions_{kind}']} {words} leave {summary[f'width_{kind}'].value:.1%}"
        for kind, words in DRAWN.items()
        if f"directions_{kind}" in summary
    ]
    if drawn and params.tolerance is not None:
        said.append(f"Medians were to be known within {params.tolerance:.1%}: {' and '.join(drawn)}.")
    if f"width_{RATIO}" in summary and params.ratio_tolerance is not None:
        count, width = summary[f"directions_{RATIO}"], summary[f"width_{RATIO}"].value
        said.append(
            f"The ratio of random to null was to be known within {params.ratio_tolerance:.1%}: {count} directions of "
            f"both kinds leave {width:.1%}."
        )
    return said
