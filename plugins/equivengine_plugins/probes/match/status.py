"""Whether a pair is matched, and in words why not and what to do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from equivengine_plugins.probes.match.parameters import STEPS
from equivengine_plugins.probes.match.summary import steps_of

if TYPE_CHECKING:
    from equivengine_plugins.probes.match.measured import Measured

#: Up to this many times the roundoff of the run, float64 is worth a try.
NEAR = 100
#: A point where the linear model would save no more than this share of the distance is called stationary.
STATIONARY = 0.01


def status_of(measured: Measured, row: int) -> tuple[Literal["ok", "not_converged"], str]:
    """Status and message of the pair at ``row``."""
    params, found = measured.params, measured.solved.float_
    stop = found.stop[row]
    notes = _notes(measured, row)
    fault = _lattice_fault(measured, row)
    if stop == "reached":
        return ("not_converged" if fault else "ok"), "; ".join([*fault, *notes])
    distance = float(found.distance[row])
    relative = distance / measured.yardstick.median
    if stop == "roundoff" and params.tolerance is None:
        note = f"matched to the roundoff of {measured.task.precision}"
        return ("not_converged" if fault else "ok"), "; ".join([note, *fault, *notes])
    where = f"|f(matched) - f(target)| = {distance:.3g}, {relative:.3g} of the yardstick, tolerance {params.relative:g}"
    return "not_converged", "; ".join([f"{where}: {_reason(measured, row)}", *fault, *notes])


def _lattice_fault(measured: Measured, row: int) -> list[str]:
    """What is to be said where the match on 8-bit levels breaks a budget, or misses a tolerance that was asked for."""
    params, lattice = measured.params, measured.solved.lattice
    if lattice is None:
        return []
    change, distance = float(measured.variants["matched"].l2[row]), float(lattice.distance[row])
    if params.l2 is not None and change > params.l2 * (1 + 1e-6):
        return [f"on 8-bit levels the change is {change:.4g} long, beyond the budget l2 of {params.l2:g}; raise l2"]
    if params.tolerance is not None and distance > measured.solved.goal:
        relative = distance / measured.yardstick.median
        return [
            f"on 8-bit levels |f(matched) - f(target)| = {distance:.3g}, {relative:.3g} of the yardstick, tolerance "
            f"{params.relative:g}: no move by a level that was tried comes nearer; raise tolerance"
        ]
    return []


def _reason(measured: Measured, row: int) -> str:
    """Why the solver stopped, and what to try."""
    params, found = measured.params, measured.solved.float_
    stop = found.stop[row]
    if stop == "roundoff":
        further = "pass --precision fp64, or " if measured.task.precision == "fp32" else ""
        return f"what is left is roundoff of {measured.task.precision}; {further}raise tolerance"
    if stop == "diverged":
        last = float(found.trace.distance[steps_of(measured, row), row])
        how = "the distance grew a thousandfold" if math.isfinite(last) else "the embedding is no longer finite"
        return f"diverged, {how} by step {steps_of(measured, row)}; lower rate"
    change = float(measured.variants["float" if measured.solved.lattice is not None else "matched"].l2[row])
    if float(found.distance[row]) <= measured.solved.goal and params.l2 is not None and change > params.l2:
        return f"the smallest change found is {change:.4g} long, beyond the budget l2 of {params.l2:g}; raise l2"
    if stop == "stalled":
        # The share does not heed an L2 budget.
        share = math.nan if params.l2 is not None else float(found.reducible[row])
        return f"{_standstill(share)}; {_wider(measured, row)}"
    if params.solver == "gd":
        cosine = float(found.trace.cosine[:, row][found.trace.cosine[:, row].isfinite()][-1])
        unlike = params.cosine is not None and cosine <= params.cosine
        also = f" at cosine {cosine:.6g}, not yet above {params.cosine:g}" if unlike else ""
        return f"all {params.steps or STEPS} steps are spent{also}; raise steps or rate, or take solver=lm"
    count = int(found.jacobians[row])
    jacobians = "1 Jacobian is" if count == 1 else f"{count} Jacobians are"
    return f"all {jacobians} spent; raise max_jacobians, or {_wider(measured, row)}"


def _standstill(reducible: float) -> str:
    """In words, what it is that no step leads out of."""
    if math.isnan(reducible):
        return "no step comes nearer, a local minimum"
    if reducible <= STATIONARY:
        return f"stationary within the region: to first order no change saves more than {reducible:.1g} of the distance"
    return (
        "no step comes nearer, in a valley too narrow for steps: the linear model would save "
        f"{reducible:.2g} of the distance within the region, but f is not linear so far"
    )


def _wider(measured: Measured, row: int) -> str:
    """What may be loosened."""
    params = measured.params
    ways = []
    if params.l2 is not None or params.linf is not None:
        ways.append("raise " + " and ".join(name for name in ("l2", "linf") if getattr(params, name) is not None))
    if params.bounded:
        ways.append("set clamp=false" if params.solver == "gd" else "set box=false")
    if measured.task.precision == "fp32" and measured.solved.float_.distance[row] < NEAR * measured.roundoff[row]:
        ways.append("pass --precision fp64")
    return ", ".join([*ways, "or take another original"]) if ways else "take another original"


def _notes(measured: Measured, row: int) -> list[str]:
    notes = []
    shape = measured.task.encoder.input_shape
    if "png" not in measured.variants:
        notes.append(f"inputs of shape {list(shape)} are no images: nothing is said of PNG files, PSNR and SSIM")
    if int(measured.solved.float_.cost.products[row]) == 0 and measured.solved.float_.stop[row] == "reached":
        notes.append("the original is within the tolerance already: nothing was done")
    if measured.pairs.text_norm is not None:
        notes.append("the target is the embedding of the text, scaled to the length of f(original)")
    return notes
