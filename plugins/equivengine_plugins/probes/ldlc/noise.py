"""What each estimator returns where nothing new is measured: the floor below which a value means nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import equivengine as eqv
from equivengine_plugins.probes.ldlc.along import measure_along, random_directions

if TYPE_CHECKING:
    from equivengine_plugins.probes.ldlc.parameters import LdlcParams


def noise_floors(
    task: eqv.ProbeTask[LdlcParams],
    operators: dict[str, eqv.JacobianOperator],
    exact: str,
    space: eqv.linalg.Subspace,
) -> dict[str, float]:
    """Noise floors of both estimators, in embedding units per pixel.

    Float32 is held against float64 on the same null directions, where the truth is smallest. For the precision of the
    null directions itself there may be nothing finer to compare with, so a derivative is repeated with its direction
    scaled by pi: J (pi d) / pi equals J d but for roundoff, and all its rounding is redrawn. Secants have at least one
    unit of roundoff of f over one grid step: of the narrowest place in f, where a module computes in less.

    Args:
        task: The task.
        operators: Operators at x by precision.
        exact: Precision of the null directions.
        space: Row space of J.

    Returns:
        ``null_tangent`` and ``null_secant``; in float32 runs ``tangent_fp32`` and ``secant_fp32`` too.
    """
    import numpy as np
    import torch

    params = task.params
    operator = operators[exact]
    null = random_directions(task, operator, 0, params.noise_directions, space)
    points = operator.x.expand(len(null), *operator.x.shape)
    directions = null.to(operator.dtype).reshape(points.shape)
    once = operator.along(points, directions)[1]
    scaled = operator.along(points, directions * math.pi)[1] / math.pi
    step = 2 * params.eps / (params.grid - 1)
    roundoff = operator.epsilon * float(torch.linalg.vector_norm(operator.value)) / step
    floors = {
        "null_tangent": float(torch.linalg.vector_norm(once - scaled, dim=1).max()),
        "null_secant": roundoff,
    }
    if task.precision == "fp32":
        double = operators.get("fp64") or task.jacobian(task.samples[0], precision="fp64")
        range_ = task.encoder.spec.input_range
        single, exactly = (measure_along(op, range_, null, None, params) for op in (operators["fp32"], double))
        floors["tangent_fp32"] = float(np.median(np.abs(single.tangent - exactly.tangent)))
        floors["secant_fp32"] = float(np.median(np.abs(single.secant - exactly.secant)))
    return floors
