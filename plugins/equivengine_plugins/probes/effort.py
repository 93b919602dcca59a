"""What a result says of an effort that ended where an interval was narrow enough."""

from __future__ import annotations

from collections.abc import Mapping

import equivengine as eqv
from equivengine.stopping import Effort


def effort_scalars(efforts: Mapping[str, Effort], noun: str = "directions") -> dict[str, eqv.Scalar]:
    """How many were drawn and how narrow the interval became, for each distribution; nothing without a tolerance.

    Args:
        efforts: By name of the scalar whose interval it is.
        noun: What is drawn; begins the names of counts.
    """
    found = {}
    for name, effort in efforts.items():
        group = f"{noun} drawn for a tolerance of {effort.tolerance:g}"
        found[f"{noun}_{name}"] = eqv.Scalar(effort.estimate.n, "1", f"{name}, of {effort.cap:,} at most", group=group)
        found[f"width_{name}"] = eqv.Scalar(
            effort.half_width, "1", f"{name}: half-width of its interval, relative", group=group
        )
    return found
