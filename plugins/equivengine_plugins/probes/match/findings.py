"""What a reader should take away."""

from __future__ import annotations

from collections.abc import Mapping

import equivengine as eqv
from equivengine_plugins.probes.match.parameters import MatchParams

SMALLEST = {
    "minimal-l2": " by the smallest L2 change found",
    "minimal-linf": " by the smallest L-infinity change found",
}


def findings(summary: Mapping[str, eqv.Scalar], params: MatchParams) -> list[str]:
    """Sentences from the scalars of one pair, or their medians."""
    how = SMALLEST.get(params.solver, "")
    said = [
        f"Matching{how} brought the embedding from {summary['relative_start']} to {summary['relative_matched']} of the "
        f"{summary['yardstick'].description}, for {summary['equivalents']} forward-pass equivalents."
    ]
    if "relative_png" in summary:
        said.append(f"Saved as an 8-bit PNG file and read again, {summary['relative_png']} are left.")
    change = f"The image changed by {summary['l2_matched']} in L2"
    if "l2_relative" in summary:
        change += f", {summary['l2_relative']} times the median between two images"
    if "psnr_matched" in summary:
        change += f" (PSNR {summary['psnr_matched']})"
    return [*said, f"{change}."]
