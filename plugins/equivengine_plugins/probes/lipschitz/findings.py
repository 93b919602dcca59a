"""What a reader should take away."""

from __future__ import annotations

from collections.abc import Mapping

import equivengine as eqv
from equivengine_plugins.probes.lipschitz.parameters import LipschitzParams


def findings(summary: Mapping[str, eqv.Scalar], params: LipschitzParams) -> list[str]:
    """Sentences from the scalars of one image, or their medians."""
    balls = (("l2", "L2", params.radius_l2), ("linf", "L-infinity", params.radius_linf))
    return [
        f"In the {name} ball of radius {radius:.4g} around an image, the local Lipschitz constant is at least "
        f"{summary[f'sup_{key}']}: {summary[f'ratio_{key}']} times that at the image itself."
        for key, name, radius in balls
        if f"sup_{key}" in summary
    ]
