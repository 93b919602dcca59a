"""Condenses a walk into a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

import equivengine as eqv
from equivengine_plugins.probes.nullwalk.controls import KINDS
from equivengine_plugins.probes.nullwalk.summary import summary_of

if TYPE_CHECKING:
    from equivengine_plugins.probes.nullwalk.measure import Measured

#: The walk looked at three points of each segment; what lies between them may be a little worse.
SLACK = 1.1


def make_result(measured: Measured) -> eqv.ProbeResult:
    """The result of one walk."""
    status, message = _status(measured)
    task = measured.task
    return eqv.ProbeResult(
        _arrays(measured),
        summary_of(measured),
        _checks(measured),
        status=status,
        message=message,
        provenance={
            "end": measured.end,
            "jacobian": measured.mode,
            "goal": measured.task.params.tolerance * measured.yardstick.median,
            "box": list(task.encoder.spec.input_range) if task.params.box else None,
            "points_stored": _stored(measured).tolist(),
        },
        pictures=_pictures(measured),
    )


def _goal(measured: Measured) -> float:
    return measured.task.params.tolerance * measured.yardstick.median


def _worst(measured: Measured) -> float:
    fresh = measured.fresh
    return float(torch.cat([fresh.drift, fresh.between]).max())


def _stored(measured: Measured) -> np.ndarray:
    """Numbers of the points that are stored, evenly spaced."""
    count = len(measured.points)
    return np.unique(np.linspace(0, count - 1, min(count, measured.task.params.stored)).round().astype(int))


def _checks(measured: Measured) -> dict[str, eqv.Check]:
    fresh, goal, spec = measured.fresh, _goal(measured), measured.task.encoder.spec
    checks = {
        "points": eqv.Check.at_most(
            float(fresh.drift.max()) / goal, 1 + 3 * fresh.noise / goal, "every point is within the tolerance, in fp64"
        ),
        "segments": eqv.Check.at_most(
            _worst(measured) / goal, SLACK, "every point looked at between them is so too, nearly (connected)"
        ),
        "same_drift": eqv.Check.at_most(
            float((fresh.drift - measured.claimed).abs().max()),
            3 * fresh.noise + 1e-12 * measured.yardstick.median,
            "the walk's own |f(z) - f(x)| are those of fp64, within roundoff",
        ),
        "triangle": eqv.Check.at_most(
            float(torch.linalg.vector_norm(measured.moved, dim=1).max())
            / max(float(measured.lengths.sum()), float(np.finfo(float).tiny)),
            1 + 1e-9,
            "no point is further from the start than the walk is long, ratio",
        ),
    }
    if measured.task.params.box:
        low, high = spec.input_range
        beyond = max(low - float(measured.points.min()), float(measured.points.max()) - high)
        checks["in_box"] = eqv.Check.at_most(beyond, 0, "no pixel leaves the input range, largest excess")
    return checks


def _status(measured: Measured) -> tuple[Literal["ok", "not_converged"], str]:
    params, goal = measured.task.params, _goal(measured)
    if len(measured.points) == 1:
        why = (
            f"J has rank {measured.rank} of {measured.points[0].numel()} inputs: there is no null space"
            if measured.rank == measured.points[0].numel()
            else "no null direction of J within the box leads on"
        )
        return "not_converged", f"the walk cannot move: {why}; raise tolerance, set box=false, or take another start"
    if _worst(measured) > SLACK * goal + 3 * measured.fresh.noise:
        return (
            "not_converged",
            f"between its points the walk leaves the tolerance, |f(z) - f(x)| = {_worst(measured):.3g} of {goal:.3g}: "
            "lower tolerance or step",
        )
    ends = {
        "steps": f"all {params.steps} steps were made: with more it may go further",
        "arrived": "the walk arrived at the target",
        "stalled": f"after {len(measured.points) - 1} steps nothing leads further on",
    }
    return "ok", ends[measured.end]


def _arrays(measured: Measured) -> dict[str, eqv.Array]:
    fresh, controls = measured.fresh, measured.controls
    stored = _stored(measured)
    shape = measured.task.encoder.input_shape
    axes = ("channel", "row", "column") if len(shape) == 3 else tuple(f"axis_{k}" for k in range(len(shape)))
    arrays = {
        "points": eqv.Array(
            _numpy(measured.points[torch.from_numpy(stored).to(measured.points.device)]),
            ("point", *axes),
            "pixel",
            "points of the walk, evenly spaced in steps",
        ),
        "point_step": eqv.Array(stored, ("point",), "1", "after which step each of them stands"),
        "distance": eqv.Array(
            _numpy(torch.linalg.vector_norm(measured.moved, dim=1)), ("node",), "pixel", "|z - x|, L2, after each step"
        ),
        "progress": eqv.Array(_numpy(measured.progress), ("node",), "pixel", "advance along the wanted way"),
        "drift": eqv.Array(_numpy(fresh.drift), ("node",), "embedding", "|f(z) - f(x)|, fp64"),
        "length": eqv.Array(_numpy(measured.lengths), ("step",), "pixel", "length of each step, L2"),
        "wanted": eqv.Array(
            _numpy(measured.wanted), ("step",), "pixel", "length of the wanted step, before projection"
        ),
        "between": eqv.Array(
            _numpy(fresh.between), ("step",), "embedding", "largest |f(y) - f(x)| seen inside each segment, fp64"
        ),
        "change": eqv.Array(_numpy(controls.walked), ("step",), "embedding", "|f(z') - f(z)| of each step"),
    }
    for kind in KINDS:
        arrays[f"drift_{kind}"] = eqv.Array(
            _numpy(controls.drift[kind]), ("node",), "embedding", f"|f(x + e) - f(x)|, |e| = |z - x|, {kind} direction"
        )
        arrays[f"change_{kind}"] = eqv.Array(
            _numpy(controls.change[kind]),
            ("step",),
            "embedding",
            f"|f(z + e) - f(z)|, |e| = |z' - z|, {kind} direction",
        )
    if fresh.classes is not None:
        names = measured.task.encoder.loaded.class_names
        classes = fresh.classes.cpu().numpy()
        words = [str(names[k]) if names is not None and k < len(names) else str(k) for k in classes]
        arrays["predicted"] = eqv.Array(classes, ("node",), "1", "predicted class after each step, number")
        arrays["predicted_names"] = eqv.Array(np.array(words), ("node",), "1", "predicted class after each step, name")
    if measured.task.params.direction == "target":
        arrays["target"] = eqv.Array(_numpy(measured.task.samples[1]), axes, "pixel", "where the walk wants to go")
    arrays["reference_quantiles"] = measured.yardstick.quantile_array()
    arrays["goal"] = eqv.Array(np.array([_goal(measured)]), ("one",), "embedding", "the tolerance, absolute")
    arrays["reference_l2"] = eqv.Array(
        np.array([measured.yardstick.pixel_l2]), ("one",), "pixel", "median L2 between the images of reference pairs"
    )
    arrays["input_range"] = eqv.Array(
        np.array(measured.task.encoder.spec.input_range), ("end",), "pixel", "smallest and largest value of an input"
    )
    return arrays


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _pictures(measured: Measured) -> dict[str, eqv.Picture]:
    shape, (low, high) = measured.task.encoder.input_shape, measured.task.encoder.spec.input_range
    if len(shape) != 3 or shape[0] not in (1, 3):
        return {}

    def unit(x: torch.Tensor) -> torch.Tensor:
        return (x.double() - low) / (high - low)

    last = len(measured.points) - 1
    pictures = {"start": eqv.pictures.picture(unit(measured.points[0]), "the start, x")}
    for quarter in (1, 2, 3):
        step = round(last * quarter / 4)
        if 0 < step < last:
            pictures[f"step_{step}"] = eqv.pictures.picture(unit(measured.points[step]), f"after step {step}")
    if last:
        end = unit(measured.points[-1])
        pictures["end"] = eqv.pictures.picture(end, f"the end, after step {last}")
        # A walk goes far: amplified, its difference would be white.
        pictures["difference"] = eqv.pictures.difference(unit(measured.points[0]), end, "|end - start| x 1", 1)
    if measured.task.params.direction == "target":
        pictures["target"] = eqv.pictures.picture(unit(measured.task.samples[1]), "where the walk wants to go")
    return pictures
