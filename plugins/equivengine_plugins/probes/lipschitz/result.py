"""Condenses ascents into a result: suprema, ratios to s_1 at x, secants, checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import equivengine as eqv

if TYPE_CHECKING:
    import torch

    from equivengine_plugins.probes.lipschitz.ascent import Ascent
    from equivengine_plugins.probes.lipschitz.ball import Ball
    from equivengine_plugins.probes.lipschitz.parameters import LipschitzParams
    from equivengine_plugins.probes.lipschitz.secants import Verified
    from equivengine_plugins.probes.lipschitz.triplet import Triplets

UNIT = "embedding / pixel"
NAMES = {"l2": "L2", "linf": "L-infinity"}
#: An ascent is converged by how much it rose over so many last steps.
WINDOW = 5
#: Tangent and secant at the maximizer may differ by this share: the points of the secant lie beside it.
AGREEMENT = 1e-3


@dataclass(frozen=True)
class Found:
    """The search over one ball.

    Attributes:
        ball: The ball.
        ascent: Ascents from all starts.
        best: Which start reached the largest s_1.
        point: The maximizer, [m], float64.
        verified: What float64 says about it.
    """

    ball: Ball
    ascent: Ascent
    best: int
    point: torch.Tensor
    verified: Verified

    @property
    def rise(self) -> float:
        """Relative rise of the largest s_1 of all starts over the last `WINDOW` steps."""
        largest = self.ascent.s.amax(dim=1)
        return float(largest[-1] / largest[max(0, len(largest) - 1 - WINDOW)]) - 1


def make_result(task: eqv.ProbeTask[LipschitzParams], at_x: Triplets, found: dict[str, Found]) -> eqv.ProbeResult:
    """The probe's result.

    Args:
        task: The task.
        at_x: The top singular triplet at x, float64; a batch of one.
        found: Searches by norm.
    """
    import numpy as np

    s, residual = float(at_x.s[0]), float(at_x.residual[0])
    here = "Jacobian at x"
    summary = {
        "s_1": eqv.Scalar(s, UNIT, "s_1, the largest singular value", (s - residual, s + residual), group=here),
        "residual": eqv.Scalar(residual, UNIT, "|J^T u - s_1 v|: some singular value is as close to it", group=here),
    }
    arrays = {"s_at_x": eqv.Array(np.array([s]), ("point",), UNIT, "largest singular value of J at x")}
    checks = {"residual": eqv.Check.at_most(residual / s, 1e-6, "residual of the singular triplet at x, over s_1")}
    for norm, one in found.items():
        _add(task, norm, one, s, summary, arrays, checks)
    rising = {norm: one.rise for norm, one in found.items() if not one.rise <= task.params.tolerance}
    message = "; ".join(
        f"over the {NAMES[norm]} ball s_1 still rose by {rise:.1%} in the last {WINDOW} steps: raise steps or lower "
        "the radius (the value is a lower bound either way)"
        for norm, rise in rising.items()
    )
    return eqv.ProbeResult(
        arrays,
        summary,
        checks,
        status="not_converged" if rising else "ok",
        message=message,
        provenance={
            "ascent_precision": task.precision,
            "verified_in": "fp64",
            "products": {norm: one.ascent.products for norm, one in found.items()},
            "secant_h": {norm: one.verified.h for norm, one in found.items()},
            "box": list(task.encoder.spec.input_range) if task.params.box else None,
        },
    )


def _add(
    task: eqv.ProbeTask[LipschitzParams],
    norm: str,
    found: Found,
    s: float,
    summary: dict[str, eqv.Scalar],
    arrays: dict[str, eqv.Array],
    checks: dict[str, eqv.Check],
) -> None:
    """One ball."""
    import numpy as np

    ball, ascent, verified = found.ball, found.ascent, found.verified
    label = NAMES[norm]
    group = f"{label} ball of radius {ball.radius:.4g}" + (" within the input range" if ball.box else "")
    low, high = task.encoder.spec.input_range
    outside = float(((found.point < low) | (found.point > high)).to(found.point.dtype).mean())
    last = ascent.s[-1]
    starts = len(last)
    certified = max(verified.secant - verified.roundoff, verified.path_secant - verified.path_roundoff)

    def add(name: str, value: float, unit: str, description: str, n: int | None = None) -> None:
        summary[f"{name}_{norm}"] = eqv.Scalar(value, unit, description, n=n, group=group)

    add("sup", verified.s, UNIT, "largest s_1(J(z)) found: a lower bound of the supremum", starts)
    add("ratio", verified.s / s, "1", "the same over s_1 at x", starts)
    add("secant", verified.secant, UNIT, "|f(a) - f(b)| / |a - b| beside the maximizer, along v_1")
    add("path_secant", verified.path_secant, UNIT, "the largest |f(a) - f(b)| / |a - b| of points on the paths")
    add("certified", certified, UNIT, "the larger of the two, less its roundoff")
    if starts > 1:
        add("random", float(ascent.s[0, 1:].max()), UNIT, "largest s_1 at random points of the ball", starts - 1)
    add("worst", float(last.min()), UNIT, "least successful start: where it ended", starts)
    add("rise", found.rise, "1", f"rise of the largest s_1 over the last {WINDOW} steps, relative")
    add("distance", float(ball.distance(found.point)), "pixel", f"{label} distance of the maximizer from x")
    add("margin", verified.margin, "pixel", "how far inside the ball both points of the secant lie")
    add("outside", outside, "1", "pixels of the maximizer out of range, share")

    gap = abs(verified.secant - verified.s) - verified.roundoff
    checks[f"secant_{norm}"] = eqv.Check.at_most(
        gap / verified.s, AGREEMENT, f"{label}: the secant at the maximizer equals s_1 there, relative"
    )
    checks[f"no_faster_{norm}"] = eqv.Check.at_most(
        certified / verified.s, 1 + AGREEMENT, f"{label}: no pair of points is faster than the supremum found"
    )
    checks[f"inside_{norm}"] = eqv.Check.at_least(
        verified.margin / ball.radius, -1e-12, f"{label}: both points of the secant lie in the ball, margin over radius"
    )
    checks[f"path_{norm}"] = eqv.Check.at_most(
        abs(float(last.max()) / verified.s - 1), AGREEMENT, f"{label}: the ascent's last s_1 equals fp64's, relative"
    )
    checks[f"residual_{norm}"] = eqv.Check.at_most(
        verified.residual / verified.s, 1e-6, f"{label}: residual of the singular triplet at the maximizer, over s_1"
    )

    step, start = f"step_{norm}", f"start_{norm}"
    path = ascent.s.cpu().numpy()
    arrays[f"path_{norm}"] = eqv.Array(path, (step, start), UNIT, f"s_1 reached after each step, {label} ball")
    arrays[f"distance_{norm}"] = eqv.Array(
        ascent.distance.cpu().numpy(), (step, start), "pixel", f"{label} distance from x after each step"
    )
    arrays[f"certified_{norm}"] = eqv.Array(
        np.array([certified]), ("one",), UNIT, f"difference quotient of two points less its roundoff, {label} ball"
    )
    precise = found.point if task.precision == "fp64" else found.point.float()  # the run's precision holds it exactly
    arrays[f"maximiser_{norm}"] = eqv.Array(
        precise.cpu().numpy(), ("pixel",), "1", f"where s_1 is largest, {label} ball; flattened in C order of the input"
    )
    arrays[f"direction_{norm}"] = eqv.Array(
        verified.v.float().cpu().numpy(), ("pixel",), "1", f"v_1 at the maximizer, {label} ball"
    )
