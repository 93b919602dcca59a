"""What a reader should take away."""

from __future__ import annotations

from collections.abc import Mapping

import equivengine as eqv


def findings(summary: Mapping[str, eqv.Scalar]) -> list[str]:
    """Sentences from the scalars of one image, or their medians."""
    said = []
    if {"step_fp32", "error_fp32", "jvp_fp32"} <= set(summary):
        said.append(
            f"In fp32, central differences are best at a step of {summary['step_fp32']} and then wrong by "
            f"{summary['error_fp32']}, relative; a derivative by JVP is wrong by {summary['jvp_fp32']}."
        )
    if {"radius_random", "radius_normal", "radius_null"} <= set(summary):
        said.append(
            "The linear approximation holds within its bound up to a distance of "
            f"{summary['radius_random']} along random, {summary['radius_normal']} along normal-space and "
            f"{summary['radius_null']} along null-space directions."
        )
    return said
