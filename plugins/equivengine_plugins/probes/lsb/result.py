"""Condenses what was measured into a result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import equivengine as eqv
from equivengine.statistics import bootstrap
from equivengine_plugins.probes.effort import effort_scalars
from equivengine_plugins.probes.lsb.draws import KINDS, moments
from equivengine_plugins.probes.lsb.yardstick import Held, held_against

if TYPE_CHECKING:
    import numpy as np

    from equivengine_plugins.probes.lsb.measure import Measured
    from equivengine_plugins.probes.lsb.parameters import LsbParams

UNIT = "embedding"
#: Inputs further than this off whole levels are said to have been rounded; below it lies the rounding of float32.
OFF_LATTICE = 1e-4


def make_result(task: eqv.ProbeTask[LsbParams], measured: Measured) -> eqv.ProbeResult:
    """The probe's result."""
    summary = _summary(task, measured, held_against(task, measured.evaluation.value))
    status, message = _status(task, measured)
    worst, linear = measured.worst, measured.linear
    return eqv.ProbeResult(
        _arrays(task, measured),
        summary,
        _checks(task, measured),
        status=status,
        message=message,
        provenance={
            "images_tried": measured.evaluation.visited.count,
            "linear_model": "all of J" if linear.whole else f"its leading {len(linear.values)} singular triplets",
            "linear_model_note": linear.note,
            "power_iterations": worst.iterations,
            "linear_maxima": worst.distinct,
            **({"effort": {k: e.to_json() for k, e in measured.efforts.items()}} if measured.efforts else {}),
            "noise_against": "fp64" if task.precision == "fp32" else "batches of one, and machine epsilon x |f(x)|",
        },
    )


def _texts(task: eqv.ProbeTask[LsbParams], measured: Measured) -> dict[str, str]:
    """What each kind of move is, in the words of a table."""
    levels = task.params.levels
    some = "1 level" if levels == 1 else f"{levels} levels"
    known = "columns of J" if measured.linear.whole else "leading triplets of J"
    return {
        "uniform": f"random, 0 to {some} either way",
        "signs": f"random, all by {some}",
        "truncation": f"truncated with noise of {task.params.noise:g}",
        "singular": f"all by {some}, signs of v_1",
        "pixel": f"one pixel, by {some}; by {known}",
        "worst": "worst found",
    }


def _summary(task: eqv.ProbeTask[LsbParams], measured: Measured, held: Held) -> dict[str, eqv.Scalar]:
    import numpy as np

    texts, found = _texts(task, measured), measured.responses
    linear, lattice = measured.linear, measured.evaluation.lattice
    seed = task.stream("bootstrap") % 2**32
    summary: dict[str, eqv.Scalar] = {}

    def add(name: str, values: np.ndarray | float, unit: str, description: str, group: str) -> None:
        """A number, or the median of many with its interval."""
        if np.ndim(values) == 0 or np.size(values) == 1:
            summary[name] = eqv.Scalar(float(np.asarray(values).reshape(())), unit, description, group=group)
            return
        middle = bootstrap(np.asarray(values), seed=seed)
        summary[name] = eqv.Scalar(middle.value, unit, description, middle.interval, middle.n, group)

    here = "|f(x + d) - f(x)|; of draws the median"
    for kind, text in texts.items():
        text += ": a lower bound" if kind == "worst" else ""
        add(kind, found[kind].measured, UNIT, text, here)
        if kind in measured.efforts and math.isfinite(measured.efforts[kind].half_width):
            known = measured.efforts[kind].estimate
            summary[kind] = eqv.Scalar(known.value, UNIT, text, known.interval, known.n, here)
        if kind in KINDS:
            summary[f"{kind}_max"] = eqv.Scalar(
                found[kind].measured.max(), UNIT, "largest of them", n=len(found[kind].measured), group=here
            )
    group = f"over {held.name}"
    for kind in ("uniform", "truncation", "pixel", "worst") if held.length > 0 else ():
        add(f"relative_{kind}", found[kind].measured / held.length, "1", texts[kind], group)
    summary["yardstick"] = eqv.Scalar(held.length, UNIT, held.name, held.interval, held.n, group)
    worst = float(found["worst"].measured[0])
    group = "over the median of random"
    middle = np.median(found["uniform"].measured)
    for kind in ("truncation", "pixel", "worst"):
        add(f"{kind}_over_uniform", _ratio(found[kind].measured, middle), "1", texts[kind], group)
    group = "linear model, |J d|"
    for kind, text in texts.items():
        add(f"linear_{kind}", found[kind].linear, UNIT, text, group)
    add("linear_search", measured.worst.linear, UNIT, "largest found by the power method", group)
    add("s_1", float(linear.values[0]), "embedding / pixel", "s_1, the largest singular value of J", group)
    bound = float(linear.values[0]) * task.params.levels * lattice.step * len(lattice.start) ** 0.5
    add("bound", bound, UNIT, "s_1 sqrt(m) max|d_j|: no |J d| exceeds it", group)
    add("worst_over_bound", worst / bound, "1", "worst found over that bound", group)
    group = "measured over linear"
    for kind, text in texts.items():
        add(f"linearity_{kind}", _ratio(found[kind].measured, found[kind].linear), "1", text, group)
    if task.encoder.classify_ability:
        group = "another class predicted, share"
        for kind, text in texts.items():
            classes = found[kind].other_class
            summary[f"class_changed_{kind}"] = eqv.Scalar(
                classes.mean(), "1", text, n=len(classes) if kind in KINDS else None, group=group
            )
    group = "pixels"
    add(
        "saturated",
        float(((lattice.lowest == 0) | (lattice.highest == 0)).double().mean()),
        "1",
        "at an end of the scale, share",
        group,
    )
    add("lowered", found["truncation"].changed, "1", "lowered by truncation, share", group)
    add("worst_pixels", found["worst"].changed, "1", "moved by the worst found, share", group)
    add("rounding_levels", measured.rounded.levels, "1", "x off whole levels, largest, in levels", group)
    add("rounding", measured.rounded.moved, UNIT, "moved by rounding x to them", group)
    group = "noise floor"
    precision = "fp32 against fp64" if task.precision == "fp32" else "fp64 in other batches"
    add("noise", measured.noise, UNIT, f"{precision}, largest", group)
    return summary | effort_scalars(measured.efforts, "draws")


def _ratio(measured: np.ndarray, other: np.ndarray) -> np.ndarray:
    """One over the other; 1 where neither moves."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((measured == 0) & (other == 0), 1.0, measured / other)


def _checks(task: eqv.ProbeTask[LsbParams], measured: Measured) -> dict[str, eqv.Check]:
    import numpy as np

    found, linear, visited = measured.responses, measured.linear, measured.evaluation.visited
    top = float(linear.values[0])
    worst = max(float(found["worst"].measured[0]), float(np.finfo(float).tiny))
    rates = np.concatenate([r.linear[r.length > 0] / r.length[r.length > 0] for r in found.values()])
    others = max(float(r.measured.max()) for kind, r in found.items() if kind != "worst")
    checks = {
        "linear_bound": eqv.Check.at_most(
            float(rates.max()) / top, 1 + (linear.error + linear.resolution) / top, "|J d| <= s_1 |d|, largest ratio"
        ),
        "on_lattice": eqv.Check.at_most(
            visited.off_lattice, 1e-4, "every image tried holds whole levels, largest distance"
        ),
        "in_range": eqv.Check.at_most(visited.beyond, 0, "no pixel leaves 0 .. 255 or the budget, levels beyond"),
        "nothing_worse": eqv.Check.at_most(others / worst, 1 + 1e-6, "nothing tried beats the worst found, ratio"),
        "worst_again": eqv.Check.at_most(
            abs(measured.worst_again / worst - 1), 1e-3, "the worst found, made again, relative difference"
        ),
        "above_noise": eqv.Check.at_least(
            float(np.median(found["uniform"].measured)) / max(measured.noise, np.finfo(float).tiny),
            3.0,
            "random changes over the noise floor",
        ),
    }
    if linear.whole:
        for kind in ("uniform", "signs"):
            squares = found[kind].linear ** 2
            expected = linear.mean_square(*moments(measured.evaluation, kind, task.params.levels))
            error = max(float(squares.std(ddof=1)) / len(squares) ** 0.5, 1e-12 * expected)
            checks[f"mean_square_{kind}"] = eqv.Check.at_most(
                abs(float(squares.mean()) - expected) / error,
                5.0,
                f"mean of |J d|^2, {kind} draws, as J says, in standard errors",
            )
    return checks


def _arrays(task: eqv.ProbeTask[LsbParams], measured: Measured) -> dict[str, eqv.Array]:
    import numpy as np
    import torch

    texts, shape = _texts(task, measured), measured.evaluation.shape
    evaluation, linear = measured.evaluation, measured.linear
    lattice, move = evaluation.lattice, measured.worst.move
    image = ("channel", "row", "column")
    arrays = {}
    for kind in texts:
        one, dim = measured.responses[kind], ("draw",) if kind in KINDS else ("one",)
        arrays[kind] = eqv.Array(one.measured, dim, UNIT, f"|f(x + d) - f(x)|, {texts[kind]}")
        arrays[f"linear_{kind}"] = eqv.Array(one.linear, dim, UNIT, f"|J d|, {texts[kind]}")
        arrays[f"length_{kind}"] = eqv.Array(one.length, dim, "pixel", f"|d|, L2, {texts[kind]}")
    name, of = ("sensitivity", "|J e_j|") if linear.whole else ("sensitivity_leading", "|J e_j| by leading triplets")
    per_level = (linear.column_norms * lattice.step).reshape(shape)
    arrays[name] = eqv.Array(per_level.cpu().numpy(), image, "embedding / level", f"{of} of each pixel j")
    row = np.unravel_index(measured.pixel, tuple(shape))
    arrays["pixel_index"] = eqv.Array(np.array(row), ("axis",), "1", "the one pixel: channel, row, column")
    arrays["levels"] = eqv.Array(
        lattice.start.reshape(shape).to(torch.uint8).cpu().numpy(), image, "level", "the image, 0 .. 255"
    )
    arrays["worst_levels"] = eqv.Array(
        (lattice.start + move).reshape(shape).to(torch.uint8).cpu().numpy(), image, "level", "the worst image found"
    )
    arrays["worst_path"] = eqv.Array(
        measured.worst.path.cpu().numpy(), ("step", "search"), UNIT, "|f(x + d) - f(x)| after each step of the search"
    )
    arrays["embedding"] = eqv.Array(evaluation.value.cpu().numpy(), ("embedding",), UNIT, "f(x)")
    return arrays


def _status(task: eqv.ProbeTask[LsbParams], measured: Measured) -> tuple[Literal["ok", "not_converged"], str]:
    faults, notes = [], []
    if measured.worst.rising:
        faults.append(
            f"the worst change found still grew in step {task.params.steps}: raise steps "
            "(it is a lower bound either way)"
        )
    short = (effort.shortage(f"the median of {kind}", "draws") for kind, effort in measured.efforts.items())
    faults += [said for said in short if said]
    if measured.linear.status != "ok":
        faults.append(f"s_1 is not accurate ({measured.linear.note}): set method=exact")
    if measured.rounded.levels > OFF_LATTICE:
        notes.append(
            f"this input held no whole levels (up to {measured.rounded.levels:.2g} of one off) and was rounded first"
        )
    return ("not_converged" if faults else "ok"), "; ".join([*faults, *notes])
