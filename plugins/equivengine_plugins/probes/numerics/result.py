"""Condenses what was measured into a result: recommended steps, errors of derivatives, radii, checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import equivengine as eqv
from equivengine.statistics import bootstrap
from equivengine_plugins.probes.effort import effort_scalars
from equivengine_plugins.probes.numerics.radius import crossing
from equivengine_plugins.probes.numerics.steps import best

if TYPE_CHECKING:
    import numpy as np

    from equivengine.statistics import Estimate
    from equivengine.stopping import Effort
    from equivengine_plugins.probes.numerics.parameters import NumericsParams
    from equivengine_plugins.probes.numerics.radius import Linearisation
    from equivengine_plugins.probes.numerics.steps import Best, Curve

UNIT = "embedding / pixel"
KINDS = {"random": "random", "normal": "normal-space", "null": "null-space"}
#: Which parameter holds the cap of a kind.
CAPS = {"random": "radius_directions", "normal": "normal_directions", "null": "null_directions"}


@dataclass(frozen=True)
class Measured:
    """What the probe measured.

    Attributes:
        curves: Central differences by precision.
        noise: |J_p d - J_64 d| / |J_64 d| by precision p, [D].
        radius: Linear approximation by kind of direction.
        efforts: How well median radii are known, by name of the scalar; empty without a tolerance.
        rms: Rms of |J d| over random unit d.
        exact: Whether it is |J|_F / sqrt(m), of J written out, or that of the directions drawn.
        note: A remark, or empty.
    """

    curves: dict[str, Curve]
    noise: dict[str, np.ndarray]
    radius: dict[str, Linearisation]
    efforts: dict[str, Effort]
    rms: float
    exact: bool
    note: str


def make_result(task: eqv.ProbeTask[NumericsParams], measured: Measured) -> eqv.ProbeResult:
    """The probe's result."""
    seed = task.stream("bootstrap") % 2**32
    bests = {precision: best(curve, seed) for precision, curve in measured.curves.items()}
    summary: dict[str, eqv.Scalar] = {}
    arrays: dict[str, eqv.Array] = {}
    checks: dict[str, eqv.Check] = {}
    _steps(measured, bests, seed, summary, arrays, checks)
    censored = _radii(task, measured, seed, summary, arrays, checks)
    status, message = _status(task, measured, bests, censored)
    return eqv.ProbeResult(
        arrays,
        summary,
        checks,
        status=status,
        message=message,
        provenance={
            "differences": "central, both points in one batch, divided by the realized difference",
            "truth": "JVP in fp64",
            "jvp_precisions": list(measured.noise),
            "reference_response": "|J|_F / sqrt(m)" if measured.exact else "rms |J d| of random d",
            **({"effort": {k: e.to_json() for k, e in measured.efforts.items()}} if measured.efforts else {}),
        },
    )


def _scalar(estimate: Estimate, unit: str, description: str, group: str) -> eqv.Scalar:
    return eqv.Scalar(estimate.value, unit, description, estimate.interval, estimate.n, group)


def _steps(
    measured: Measured,
    bests: dict[str, Best],
    seed: int,
    summary: dict[str, eqv.Scalar],
    arrays: dict[str, eqv.Array],
    checks: dict[str, eqv.Check],
) -> None:
    """Step sizes, slopes and errors of derivatives."""
    import numpy as np

    at, slopes, noise = "best step of central differences", "slopes of the error curve", "error of a JVP against fp64"
    for precision, found in bests.items():
        summary[f"step_{precision}"] = _scalar(found.step, "pixel", f"{precision}: step h of the smallest error", at)
        summary[f"error_{precision}"] = _scalar(found.error, "1", f"{precision}: relative error at that step", at)
    for precision, found in bests.items():
        for side, estimate, expected, law in (
            ("truncation", found.rising, 2, "h^2"),
            ("roundoff", found.falling, -1, "1/h"),
        ):
            summary[f"{side}_{precision}"] = _scalar(
                estimate, "1", f"{precision}: {side} side, {expected} expected", slopes
            )
            if estimate.n:
                checks[f"{side}_{precision}"] = eqv.Check.at_most(
                    abs(estimate.value - expected),
                    0.5,
                    f"{side} of {precision} differences goes like {law}: slope off by",
                )
    for precision, gaps in measured.noise.items():
        summary[f"jvp_{precision}"] = _scalar(bootstrap(gaps, seed=seed), "1", f"{precision} JVP, relative", noise)
        arrays[f"jvp_error_{precision}"] = eqv.Array(
            gaps, ("direction",), "1", f"|J d in {precision} - J_64 d| / |J_64 d|"
        )
    checks["jvp"] = eqv.Check.at_most(
        bests["fp64"].error.value, 1e-5, "fp64 differences at their best step agree with the fp64 JVP, relative"
    )
    checks["jvp_fp32"] = eqv.Check.at_most(
        summary["jvp_fp32"].value / max(bests["fp32"].error.value, np.finfo(float).tiny),
        1.0,
        "a fp32 JVP is at least as accurate as the best fp32 difference, ratio of errors",
    )
    first = next(iter(measured.curves.values()))
    arrays["steps"] = eqv.Array(first.steps, ("step",), "pixel", "step sizes h, L2 length")
    for precision, curve in measured.curves.items():
        dims = ("step", "direction")
        arrays[f"error_{precision}"] = eqv.Array(
            curve.error, dims, "1", f"|central difference in {precision} - J_64 d| / |J_64 d|"
        )
        arrays[f"error_own_{precision}"] = eqv.Array(
            curve.error_own, dims, "1", f"|central difference - JVP, both in {precision}| / |J_64 d|"
        )
        arrays[f"distortion_{precision}"] = eqv.Array(
            curve.distortion, dims, "1", f"|realized - intended step| / intended, {precision}"
        )
        arrays[f"step_{precision}"] = eqv.Array(
            np.array([bests[precision].step.value]), ("best",), "pixel", f"step of the smallest error, {precision}"
        )


def _radii(
    task: eqv.ProbeTask[NumericsParams],
    measured: Measured,
    seed: int,
    summary: dict[str, eqv.Scalar],
    arrays: dict[str, eqv.Array],
    checks: dict[str, eqv.Check],
) -> dict[str, np.ndarray]:
    """Radii of linearization. Returns which are ends of the sweep, by name of the array."""
    import numpy as np

    level, rms = task.params.level, measured.rms
    reference = f"radius: Eq. 5 off by {level:.0%} of |J|_F |d| / sqrt(m)"
    own = f"radius: Eq. 5 off by {level:.0%} of |f(x + d) - f(x)|"
    censored = {}

    def add(name: str, kind: str, relative: np.ndarray, group: str, description: str) -> None:
        radii, ends = crossing(measured.radius[kind].lengths, relative, level)
        censored[name] = ends
        effort = measured.efforts.get(name)
        known = effort is not None and math.isfinite(effort.half_width)
        estimate = effort.estimate if effort is not None and known else bootstrap(radii, seed=seed)
        summary[name] = _scalar(estimate, "pixel", f"{KINDS[kind]} directions, median", group)
        arrays[name] = eqv.Array(radii, (kind,), "pixel", f"{description}, {KINDS[kind]} directions")
        arrays[f"{name}_censored"] = eqv.Array(
            ends.astype(np.int64), (kind,), "1", "1: holds to the end of the sweep; -1: broken at its start; else 0"
        )

    for kind, found in measured.radius.items():
        add(f"radius_{kind}", kind, found.relative(rms), reference, "|d| at which Eq. 5 is off by the level")
    for kind, found in measured.radius.items():
        if kind != "null":  # to first order a null direction has no response of its own: the ratio is 1 at any length
            add(f"radius_{kind}_own", kind, found.relative_own(), own, "the same, relative to the response")
    group = "response"
    summary["rms"] = eqv.Scalar(rms, UNIT, "|J| of random directions, rms", group=group)
    for kind, found in measured.radius.items():
        if kind != "random":
            summary[f"slope_{kind}"] = _scalar(
                bootstrap(found.slope, seed=seed), UNIT, f"|J d|, {KINDS[kind]} directions", group
            )
    if "null" in measured.radius:
        checks["null"] = eqv.Check.at_most(
            float(measured.radius["null"].slope.max()) / rms, 1e-6, "|J d| of null directions, relative to random"
        )
    middle = np.median(measured.radius["random"].outside, axis=1)
    lengths = measured.radius["random"].lengths
    radius = summary["radius_random"].value
    summary["outside"] = eqv.Scalar(
        float(np.interp(np.log(radius), np.log(lengths), middle)),
        "1",
        "pixels out of range at the radius, random directions, share",
        group=group,
    )
    summary |= effort_scalars(measured.efforts)
    arrays["lengths"] = eqv.Array(lengths, ("length",), "pixel", "lengths |d|, L2")
    arrays["rms"] = eqv.Array(np.array([rms]), ("reference",), UNIT, "rms of |J d| over random unit directions")
    arrays["level"] = eqv.Array(np.array([level]), ("reference",), "1", "relative error that ends the radius")
    for kind, found in measured.radius.items():
        dims = ("length", kind)
        text = f"{KINDS[kind]} directions"
        arrays[f"{kind}_slope"] = eqv.Array(found.slope, (kind,), UNIT, f"|J d| / |d|, {text}")
        arrays[f"{kind}_error"] = eqv.Array(found.error, dims, "embedding", f"|f(x + d) - f(x) - J d|, {text}")
        arrays[f"{kind}_response"] = eqv.Array(found.response, dims, "embedding", f"|f(x + d) - f(x)|, {text}")
        arrays[f"{kind}_outside"] = eqv.Array(
            found.outside, dims, "1", f"share of pixels of x + d out of range, {text}"
        )
    return censored


def _status(
    task: eqv.ProbeTask[NumericsParams],
    measured: Measured,
    bests: dict[str, Best],
    censored: dict[str, np.ndarray],
) -> tuple[Literal["ok", "not_converged"], str]:
    import numpy as np

    faults, notes = [], [measured.note] if measured.note else []
    for end, advice in (("h_min", "lower h_min"), ("h_max", "raise h_max, unless the encoder is affine")):
        at_end = [precision for precision, found in bests.items() if found.at_end == end]
        if at_end:
            faults.append(f"the error of {' and '.join(at_end)} differences is smallest at {end}: {advice}")
    short = (
        effort.shortage(f"the median of {name}", CAPS[name.removeprefix("radius_")])
        for name, effort in measured.efforts.items()
    )
    faults += [said for said in short if said]
    radii = {name: ends for name, ends in censored.items() if not name.endswith("_own")}
    early = [name.removeprefix("radius_") for name, ends in radii.items() if np.median(ends) < 0]
    late = [name.removeprefix("radius_") for name, ends in radii.items() if np.median(ends) > 0]
    if early:
        faults.append(
            f"the linear approximation breaks before length_min along {', '.join(early)} directions: lower it"
        )
    if late:
        end = next(iter(measured.radius.values())).lengths[-1]
        notes.append(
            f"along {', '.join(late)} directions the linear approximation holds to the end of the sweep, "
            f"|d| = {end:.3g}: their radius is a lower bound"
        )
    return ("not_converged" if faults else "ok"), "; ".join([*faults, *notes])
