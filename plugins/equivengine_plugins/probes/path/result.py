"""Condenses what was found for a pair into a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

import equivengine as eqv
from equivengine_plugins.probes.path.summary import LINES, connected, kept, start_of, summary_of, within_title

if TYPE_CHECKING:
    from equivengine_plugins.probes.path.measure import Measured

#: Amplification of the difference between original and matched, as in Fig. 2 of the paper.
GAIN = 50


def make_result(measured: Measured) -> eqv.ProbeResult:
    """The result of one pair."""
    status, message = _status(measured)
    params = measured.task.params
    return eqv.ProbeResult(
        _arrays(measured),
        summary_of(measured),
        _checks(measured),
        status=status,
        message=message,
        provenance={
            "solver": params.solver,
            "stop": measured.stop,
            "goal": measured.goal,
            "match_goal": measured.match_goal,
            "box": list(measured.task.encoder.spec.input_range) if params.box else None,
            "equivalents": measured.equivalents,
            "jacobians": measured.jacobians,
            "spaces_identified": {name: turned.identified for name, turned in measured.turnings.items()},
        },
        pictures=_pictures(measured),
    )


def _status(measured: Measured) -> tuple[Literal["ok", "not_converged"], str]:
    faults, notes = [], []
    params, median = measured.task.params, measured.yardstick.median
    unbounded = " or set box=false" if params.box else ""
    looser = f"raise tolerance{unbounded}"
    if not measured.distance <= measured.match_goal:
        more = "raise max_jacobians"
        if params.solver == "gd":
            more = "lower rate" if measured.stop == "diverged" else "raise max_steps"
        faults.append(
            f"the original was not matched, |f(matched) - f(target)| is {measured.distance / median:.3g} of the "
            f"yardstick ({measured.stop}): {more}, raise match_tolerance{unbounded}"
        )
    for name in measured.within:
        steps, done = params.steps, kept(measured, name)
        if done < steps:
            worst = float(np.nanmax(measured.claimed[name])) / median
            faults.append(
                f"the {within_title(name)} is matched for {done} of {steps} steps only (up to {worst:.3g} off): "
                f"raise steps, {looser}"
            )
        done, largest = connected(measured, name)
        if done < steps:
            notes.append(
                f"the {within_title(name)} leaps after {done} of {steps} steps (up to {largest / median:.2g} of the "
                "yardstick between its points): raise steps to see whether a connected one is there"
            )
    unclear = [name for name, turned in measured.turnings.items() if turned.identified < len(turned.t)]
    if unclear:
        notes.append(
            f"not all normal spaces of {', '.join(unclear)} are determined by their singular values: change rank"
        )
    return ("not_converged" if faults else "ok"), "; ".join([*faults, *notes])


def _checks(measured: Measured) -> dict[str, eqv.Check]:
    checks = {}
    tiny = 1e-12 * measured.yardstick.median
    if measured.task.params.box:
        low, high = measured.task.encoder.spec.input_range
        nodes = [curve.nodes for curve in measured.curves.values()]
        beyond = max(max(low - float(x.min()), float(x.max()) - high) for x in nodes)
        checks["in_box"] = eqv.Check.at_most(beyond, 0, "no pixel leaves the input range, largest excess")
    off = float(torch.linalg.vector_norm(measured.curves["line"].f[-1] - measured.ends[1]))
    checks["same_distance"] = eqv.Check.at_most(
        abs(off - measured.distance),
        3 * measured.noise + tiny,
        "the solver's distance is that of fp64, within roundoff",
    )
    for name in measured.within:
        exact = torch.linalg.vector_norm(measured.curves[name].at_nodes - start_of(measured, name), dim=1).cpu().numpy()
        checks[f"same_{name}"] = eqv.Check.at_most(
            float(np.abs(exact - measured.claimed[name]).max()),
            3 * measured.noise + tiny,
            f"so it is along the {within_title(name)}",
        )
    for name, title in LINES.items():
        checks[f"{name}_detour"] = eqv.Check.at_least(
            measured.curves[name].detour, 1 - 1e-9, f"{title}: the embedding's way is no shorter than its chord"
        )
    return checks


def _stored(measured: Measured, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, measured.task.params.stored)).round().astype(int))


def _arrays(measured: Measured) -> dict[str, eqv.Array]:
    shape = measured.task.encoder.input_shape
    axes = ("channel", "row", "column") if len(shape) == 3 else tuple(f"axis_{k}" for k in range(len(shape)))
    arrays: dict[str, eqv.Array] = {}

    def add(name: str, data: np.ndarray, dims: tuple[str, ...], unit: str, description: str) -> None:
        arrays[name] = eqv.Array(data, dims, unit, description)

    titles = {"line": "original to matched", "images": "original to target"}
    titles |= {name: within_title(name) for name in measured.within}
    for name, curve in measured.curves.items():
        title, point = titles[name], (f"{name}_point",)
        add(f"{name}_t", _numpy(curve.t), point, "1", f"{title}: share of the way")
        for k, end in enumerate(("original", "target")):
            cosines = _numpy(curve.cosines(measured.ends[k]))
            add(f"{name}_cosine_{end}", cosines, point, "1", f"{title}: cosine of f(z) and f({end})")
        if curve.predicted is not None:
            add(f"{name}_predicted", _numpy(curve.predicted), point, "1", f"{title}: predicted class")
        stored = _stored(measured, len(curve.nodes))
        kept_nodes = curve.nodes[torch.from_numpy(stored).to(curve.nodes.device)].to(measured.matched.dtype)
        add(f"{name}_nodes", _numpy(kept_nodes), (f"{name}_stored", *axes), "pixel", f"{title}: points, evenly spaced")
        add(f"{name}_nodes_t", stored / (len(curve.nodes) - 1), (f"{name}_stored",), "1", "where they lie")
        if name in measured.within:
            _add_within(measured, name, arrays)
        else:
            add(f"{name}_deviation", _numpy(curve.deviations()), point, "1", f"{title}: off the chord, over it")
    for name, turned in measured.turnings.items():
        title, space = titles[name], f"{name}_space"
        add(f"{name}_space_t", turned.t, (space,), "1", f"{title}: where normal spaces are compared")
        add(f"{name}_angles", turned.from_start, (space, "angle"), "rad", f"{title}: principal angles with the start's")
        add(f"{name}_angles_next", turned.to_next, (f"{name}_pair", "angle"), "rad", "with the next one's")
        add(f"{name}_values", turned.values, (space, "angle"), "embedding / pixel", "leading singular values there")
        add(f"{name}_space_error", turned.error, (space,), "1", "sine of the error of each space")
    add("random_angles", measured.random, ("draw", "angle"), "rad", "principal angles of independent random subspaces")
    arrays["reference_quantiles"] = measured.yardstick.quantile_array()
    add("goal", np.array([measured.goal]), ("one",), "embedding", "distance to match points of paths to")
    add(
        "input_range",
        np.array(measured.task.encoder.spec.input_range),
        ("end",),
        "pixel",
        "smallest and largest value of an input",
    )
    return arrays


def _add_within(measured: Measured, name: str, arrays: dict[str, eqv.Array]) -> None:
    curve, title = measured.curves[name], within_title(name)
    apart = curve.distances(start_of(measured, name))
    arrays[f"{name}_drift"] = eqv.Array(
        _numpy(apart), (f"{name}_point",), "embedding", f"{title}: |f(z) - f(start)|, fp64"
    )
    other = measured.task.samples[1 if name == "first" else 0].double()
    left = torch.linalg.vector_norm((curve.nodes - other).flatten(1), dim=1)
    moved = torch.linalg.vector_norm((curve.nodes - curve.nodes[0]).flatten(1), dim=1)
    step = (f"{name}_step",)
    arrays[f"{name}_left"] = eqv.Array(_numpy(left), step, "pixel", f"{title}: L2 to the other image")
    arrays[f"{name}_moved"] = eqv.Array(_numpy(moved), step, "pixel", f"{title}: L2 from the start")


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _pictures(measured: Measured) -> dict[str, eqv.Picture]:
    shape, (low, high) = measured.task.encoder.input_shape, measured.task.encoder.spec.input_range
    if len(shape) != 3 or shape[0] not in (1, 3):
        return {}

    def unit(x: torch.Tensor) -> torch.Tensor:
        return (x.double() - low) / (high - low)

    picture = eqv.pictures.picture
    original, matched = unit(measured.task.samples[0]), unit(measured.matched)
    pictures = {
        "original": picture(original, "the original"),
        "target": picture(unit(measured.task.samples[1]), "the target"),
        "matched": picture(matched, "the original, matched to the target"),
        "difference": eqv.pictures.difference(original, matched, f"|matched - original| x {GAIN}", GAIN),
    }
    for name in measured.within:
        nodes = measured.curves[name].nodes
        last = len(nodes) - 1
        for step in sorted({round(last * quarter / 4) for quarter in (1, 2, 3, 4)} - {0}):
            pictures[f"{name}_{step}"] = picture(
                unit(nodes[step]), f"{within_title(name)}, after step {step} of {last}"
            )
    return pictures
