"""Condenses what was measured into a result: medians with intervals, ratios, noise floor, checks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import equivengine as eqv
from equivengine.statistics import bootstrap, ratio_of_medians, ratio_to_rms
from equivengine_plugins.probes.effort import effort_scalars
from equivengine_plugins.probes.ldlc.parameters import RATIO

if TYPE_CHECKING:
    import numpy as np

    from equivengine.statistics import Estimate
    from equivengine.stopping import Effort
    from equivengine_plugins.probes.ldlc.along import Along
    from equivengine_plugins.probes.ldlc.descent import Descent
    from equivengine_plugins.probes.ldlc.parameters import LdlcParams

UNIT = "embedding / pixel"
#: Beyond this, a secant follows the rounding of pixels rather than its direction.
MAX_DISTORTION = 0.5
KINDS = ("random", "null", "singular", "gradient")
#: What a tolerance is of: in words, which parameter holds the cap, and which the tolerance.
SOUGHT = {
    "random": ("the median of random", "directions", "tolerance"),
    "null": ("the median of null", "null_directions", "tolerance"),
    RATIO: (RATIO, "directions + null_directions", "ratio_tolerance"),
}


def make_result(
    task: eqv.ProbeTask[LdlcParams],
    measured: dict[str, Along],
    efforts: dict[str, Effort],
    descent: Descent,
    singular_values: np.ndarray,
    frobenius: float,
    m: int,
    noise: dict[str, float],
    exact: str,
) -> eqv.ProbeResult:
    """The probe's result.

    Args:
        task: The task.
        measured: What was measured along each kind of direction.
        efforts: How well the medians of random kinds and their ratio are known, where there is a tolerance.
        descent: The course of gradient descent.
        singular_values: [n], descending.
        frobenius: |J|_F.
        m: Number of input coordinates.
        noise: Noise floors by name.
        exact: Precision of the null directions.
    """
    import numpy as np

    params = task.params
    random, null, singular, gradient = (measured[kind] for kind in KINDS)
    seed = task.stream("bootstrap") % 2**32
    top = float(singular_values[0])
    expected = frobenius / m**0.5
    head = gradient.tangent[:100]

    def scalar(estimate: Estimate, description: str, group: str, unit: str = UNIT) -> eqv.Scalar:
        return eqv.Scalar(estimate.value, unit, description, estimate.interval, estimate.n, group)

    def median(values: np.ndarray, description: str, group: str, effort: Effort | None = None) -> eqv.Scalar:
        """With its interval; where looks at it decided how many there are, with one that holds at every look."""
        if effort is not None and math.isfinite(effort.half_width):
            return scalar(effort.estimate, description, group)
        return scalar(bootstrap(values, seed=seed), description, group)

    def ratio_of_both() -> Estimate:
        """Likewise; its n is that of the smaller sample."""
        effort = efforts.get(RATIO)
        if effort is not None and math.isfinite(effort.half_width):
            return replace(effort.estimate, n=min(len(random.tangent), len(null.tangent)))
        return bootstrap(random.tangent, null.tangent, statistic=ratio_of_medians, seed=seed)

    spectrum, constants, ratios, parts, floor = (
        "Jacobian at x",
        f"LDLC for |alpha| <= {params.eps:g}, median",
        "ratios",
        "null values, split (median)",
        "noise floor",
    )
    first = gradient.tangent[:1]
    summary = {
        "s_1": eqv.Scalar(top, UNIT, "s_1, the largest singular value", group=spectrum),
        "s_16": eqv.Scalar(float(singular_values[min(15, len(singular_values) - 1)]), UNIT, "s_16", group=spectrum),
        "expected_random": eqv.Scalar(expected, UNIT, "|J|_F / sqrt(m): expected rms of random", group=spectrum),
        "gradient_first": eqv.Scalar(
            float(first[0]) if len(first) else np.nan,
            UNIT,
            "matching gradient, first step",
            n=len(first),
            group=constants,
        ),
        "gradient": median(head, "matching gradient, first 100 steps", constants),
        "singular_top": eqv.Scalar(
            float(singular.tangent[0]) if len(singular.tangent) else np.nan,
            UNIT,
            "top right singular vector",
            n=min(1, len(singular.tangent)),
            group=constants,
        ),
        "random": median(random.tangent, "random directions", constants, efforts.get("random")),
        "null": median(null.tangent, "random null-space directions", constants, efforts.get("null")),
        "gradient_first_over_random": scalar(
            bootstrap(first, random.tangent, statistic=ratio_to_rms, seed=seed),
            "gradient, first step / rms of random",
            ratios,
            "1",
        ),
        "gradient_over_random": scalar(
            bootstrap(head, random.tangent, statistic=ratio_to_rms, seed=seed),
            "gradient, first 100 / rms of random",
            ratios,
            "1",
        ),
        RATIO: scalar(ratio_of_both(), "random / null", ratios, "1"),
        "random_over_null_secant": scalar(
            bootstrap(random.secant, null.secant, statistic=ratio_of_medians, seed=seed),
            "random / null, by secants",
            ratios,
            "1",
        ),
        "null_at_zero_over_random": scalar(
            bootstrap(null.at_zero, random.at_zero, statistic=ratio_of_medians, seed=seed),
            "null / random at alpha = 0",
            ratios,
            "1",
        ),
        "null_leakage": median(null.at_zero, f"leakage, |J(x) d| in {exact}", parts),
        "null_curvature": median(null.bending, "curvature, |J(x + a d) d - J(x) d|", parts),
        "null_secant": median(null.secant, f"by secants in {exact}", parts),
        "noise_null_tangent": eqv.Scalar(
            noise["null_tangent"], UNIT, f"null tangent in {exact}, rounding redrawn", group=floor
        ),
        "noise_null_secant": eqv.Scalar(
            noise["null_secant"], UNIT, f"null secant in {exact}, f's roundoff / step", group=floor
        ),
    }
    if "tangent_fp32" in noise:
        summary["noise_tangent"] = eqv.Scalar(noise["tangent_fp32"], UNIT, "tangent in fp32 against fp64", group=floor)
        summary["noise_secant"] = eqv.Scalar(noise["secant_fp32"], UNIT, "secant in fp32 against fp64", group=floor)
    summary["distortion"] = eqv.Scalar(
        float(np.median(random.distortion)) if len(random.distortion) else np.nan,
        "1",
        "grid steps bent by rounding, share",
        group=floor,
    )
    summary["outside"] = eqv.Scalar(
        float(np.mean(random.outside)) if len(random.outside) else np.nan,
        "1",
        "pixels pushed out of range, share",
        group=floor,
    )
    summary |= effort_scalars(efforts)

    checks: dict[str, eqv.Check] = {}
    if len(random.at_zero) >= 2:
        squares = random.at_zero**2 / expected**2
        deviation = abs(float(squares.mean()) - 1) / max(float(squares.std(ddof=1)) / len(squares) ** 0.5, 1e-12)
        checks["random_rms"] = eqv.Check.at_most(
            deviation, 4.0, "mean square of random = |J|_F^2 / m, in standard errors"
        )
    if len(singular.at_zero):
        s = singular_values[: len(singular.at_zero)]
        gap = float(np.max(np.abs(singular.at_zero - s) / (1e-5 * s + 1e-6 * top)))
        checks["singular_directions"] = eqv.Check.at_most(gap, 1.0, "|J v_i| = s_i within 1e-5 s_i + 1e-6 s_1, all i")
    if len(null.at_zero) and len(random.at_zero):
        checks["null_at_zero"] = eqv.Check.at_most(
            summary["null_at_zero_over_random"].value,
            1e-6 if exact == "fp64" else 1e-4,
            "null at alpha = 0, relative to random",
        )
    if len(null.tangent):
        checks["null_above_noise"] = eqv.Check.at_least(
            summary["null"].value / max(noise["null_tangent"], 1e-300),
            3.0,
            "null values over their noise floor",
        )
    if len(random.tangent):
        checks["no_faster_than_s_1"] = eqv.Check.at_most(
            float(random.at_zero.max()) / top, 1 + 1e-5, "no random direction beats s_1"
        )

    arrays = {
        "singular_values": eqv.Array(singular_values, ("index",), UNIT, "singular values of J, descending"),
        "alphas": eqv.Array(
            np.linspace(-params.eps, params.eps, params.grid), ("alpha",), "pixel", "grid of alpha, L2 length"
        ),
    }
    for kind, along in measured.items():
        arrays[f"{kind}_tangent"] = eqv.Array(along.tangent, (kind,), UNIT, f"tangent LDLC, {kind} directions")
        arrays[f"{kind}_secant"] = eqv.Array(along.secant, (kind,), UNIT, f"secant LDLC, {kind} directions")
        arrays[f"{kind}_at_zero"] = eqv.Array(along.at_zero, (kind,), UNIT, f"|J(x) d|, {kind} directions")
        arrays[f"{kind}_bending"] = eqv.Array(
            along.bending, (kind,), UNIT, f"largest |J(x + a d) d - J(x) d|, {kind} directions"
        )
        arrays[f"{kind}_distortion"] = eqv.Array(
            along.distortion, (kind,), "1", f"|realized - intended grid step| / intended, {kind} directions"
        )
        arrays[f"{kind}_outside"] = eqv.Array(
            along.outside, (kind,), "1", f"share of pixels out of range at +-eps, {kind} directions"
        )
    for name, values, unit, description in (
        ("descent_loss", descent.loss, "embedding^2", "1/2 |f(x) - f(target)|^2 before each step"),
        ("descent_cosine", descent.cosine, "1", "cosine of f(x) and f(target) before each step"),
        ("descent_pixel_difference", descent.pixel_difference, "pixel", "mean |x - original| before each step"),
        ("descent_learning_rate", descent.learning_rate, "1", "step size of each step, in Eq. 3's units"),
    ):
        arrays[name] = eqv.Array(np.array(values, dtype=np.float64), ("gradient",), unit, description)

    status, message = _status(task, measured, efforts, descent)
    return eqv.ProbeResult(
        arrays,
        summary,
        checks,
        status=status,
        message=message,
        provenance={
            "null_precision": exact,
            "tangent_precision": task.precision,
            "estimators": "tangent: forward derivative; secant: neighboring grid points, realized steps",
            **({"effort": {name: effort.to_json() for name, effort in efforts.items()}} if efforts else {}),
        },
    )


def _status(
    task: eqv.ProbeTask[LdlcParams], measured: dict[str, Along], efforts: dict[str, Effort], descent: Descent
) -> tuple[Literal["ok", "not_converged"], str]:
    faults, notes = [], []
    bent = [kind for kind, along in measured.items() if (along.distortion > MAX_DISTORTION).any()]
    if bent:
        faults.append(
            f"rounding bends the grid along {', '.join(bent)} directions by more than {MAX_DISTORTION:.0%}, so their "
            "secants mean nothing (tangents stand): raise eps, lower grid, or use --precision fp64"
        )
    short = (effort.shortage(*SOUGHT[name]) for name, effort in efforts.items())
    faults += [said for said in short if said]
    made, asked = len(descent.loss), task.params.gradient_steps
    if made < asked:
        notes.append(f"gradient descent stopped after {made} of {asked} steps: no descent is left in it")
    return ("not_converged" if faults else "ok"), "; ".join([*faults, *notes])
