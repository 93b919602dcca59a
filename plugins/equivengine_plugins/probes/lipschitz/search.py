"""The whole measurement: s_1 at x, an ascent within each ball, and its verification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

import equivengine as eqv
from equivengine_plugins.probes.lipschitz.ascent import ascend
from equivengine_plugins.probes.lipschitz.ball import Ball
from equivengine_plugins.probes.lipschitz.result import Found, make_result
from equivengine_plugins.probes.lipschitz.secants import EXACT_TOLERANCE, verify
from equivengine_plugins.probes.lipschitz.triplet import top_triplets

if TYPE_CHECKING:
    from equivengine_plugins.probes.lipschitz.parameters import LipschitzParams

#: Random vectors that a singular triplet starts from where nothing is known.
FRESH = 4
#: Points of the paths among which the fastest pair is sought; of more, as many are taken at equal intervals.
PAIRED = 256


def measure(task: eqv.ProbeTask[LipschitzParams]) -> eqv.ProbeResult:
    """Measure one input.

    Raises:
        UsageError: If points are to stay in the input range, but x lies outside it.
        NumericsError: If J(x) is zero.
    """
    params, x = task.params, task.samples[0]
    centre = x.flatten().to(torch.float64)
    box = task.encoder.spec.input_range if params.box else None
    if box is not None and not box[0] <= float(centre.min()) <= float(centre.max()) <= box[1]:
        raise eqv.UsageError(
            "box is true, but this input lies outside the encoder's input range",
            expected=f"values in [{box[0]:g}, {box[1]:g}]",
            got=f"[{float(centre.min()):g}, {float(centre.max()):g}]",
            hint="leave box out",
        )
    m = len(centre)
    fresh = eqv.linalg.gaussian_directions(task.stream("triplet"), 0, min(FRESH, m), m, device=centre.device)
    at_x = top_triplets(task.jacobian(x[None], precision="fp64"), fresh[None], EXACT_TOLERANCE)
    if float(at_x.s[0]) == 0:
        raise eqv.NumericsError(
            "the Jacobian is exactly zero here",
            expected="an input at which the encoder reacts to something",
            hint="leave this image out",
        )
    balls = [Ball(centre, params.radius_l2, "l2", box), Ball(centre, params.radius_linf, "linf", box)]
    found: dict[str, Found] = {ball.norm: search(task, ball, at_x.v[0], fresh) for ball in balls if ball.radius > 0}
    return make_result(task, at_x, found)


def search(task: eqv.ProbeTask[LipschitzParams], ball: Ball, vectors: torch.Tensor, fresh: torch.Tensor) -> Found:
    """Ascend within one ball, and verify what is found.

    Args:
        task: The task.
        ball: The ball.
        vectors: Top right singular vectors at x, [k, m].
        fresh: Random vectors [j, m] for the triplet at the maximizer.
    """
    starts = torch.cat([ball.centre[None], ball.random(task.stream(ball.norm), task.params.starts - 1)])
    ascent = ascend(task, ball, starts, task.params.steps, vectors)
    best = int(ascent.last.s.argmax())
    point = ascent.points[best][-1].to(torch.float64)
    path = [point for points in ascent.points for point in points]
    kept = torch.linspace(0, len(path) - 1, min(PAIRED, len(path))).round().long().tolist()
    verified = verify(task, ball, point, fresh, torch.stack([path[k] for k in kept]))
    return Found(ball, ascent, best, point, verified)
