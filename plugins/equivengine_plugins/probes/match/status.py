"""Whether a pair is matched, and in words why not and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from equivengine_plugins.probes.match.parameters import STEPS

if TYPE_CHECKING:
    from equivengine_plugins.probes.match.measured import Measured


def status_of(measured: Measured, row: int) -> tuple[Literal["ok", "not_converged"], str]:
    """Status and message of the pair at ``row``."""
    params, found = measured.params, measured.solved.float_
    stop = found.stop[row]
    notes = _notes(measured, row)
    if stop == "reached":
        return "ok", "; ".join(notes)
    distance = float(found.distance[row])
    relative = distance / measured.yardstick.median
    if stop == "roundoff" and params.tolerance is None:
        return "ok", "; ".join([f"matched to the roundoff of {measured.task.precision}", *notes])
    where = f"|f(matched) - f(target)| = {distance:.3g}, {relative:.3g} of the yardstick, tolerance {params.relative:g}"
    return "not_converged", "; ".join([f"{where}: {_reason(measured, row)}", *notes])


def _reason(measured: Measured, row: int) -> str:
    """Why the solver stopped, and what to try."""
    params, found = measured.params, measured.solved.float_
    stop = found.stop[row]
    if stop == "roundoff":
        further = "pass --precision fp64, or " if measured.task.precision == "fp32" else ""
        return f"what is left is roundoff of {measured.task.precision}; {further}raise tolerance"
    if stop == "diverged":
        return (
            "the iteration grew without bound; lower rate"
            if params.solver == "gd"
            else "the iteration grew without bound"
        )
    if stop == "stalled":
        return f"no step comes nearer, a local minimum; {_wider(measured)}"
    if params.solver == "gd":
        cosine = float(found.trace.cosine[:, row][found.trace.cosine[:, row].isfinite()][-1])
        unlike = params.cosine is not None and cosine <= params.cosine
        also = f" at cosine {cosine:.6g}, not yet above {params.cosine:g}" if unlike else ""
        return f"all {params.steps or STEPS} steps are spent{also}; raise steps or rate, or take solver=lm"
    count = int(found.jacobians[row])
    jacobians = "1 Jacobian is" if count == 1 else f"{count} Jacobians are"
    return f"all {jacobians} spent; raise max_jacobians, or {_wider(measured)}"


def _wider(measured: Measured) -> str:
    """What may be loosened."""
    params = measured.params
    ways = []
    if params.l2 is not None or params.linf is not None:
        ways.append("raise " + " and ".join(name for name in ("l2", "linf") if getattr(params, name) is not None))
    if params.bounded:
        ways.append("set clamp=false" if params.solver == "gd" else "set box=false")
    if measured.task.precision == "fp32":
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
        start = float(measured.pairs.start[row].norm())
        notes.append(
            f"the target is the text's embedding scaled from length {measured.pairs.text_norm:.4g} to "
            f"{start:.4g}, that of f(original)"
        )
    return notes
