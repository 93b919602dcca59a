"""The numbers of one pair, in the order in which they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

import equivengine as eqv

if TYPE_CHECKING:
    from equivengine_plugins.probes.path.measure import Measured

LINES = {"line": "straight line from original to matched", "images": "straight line from original to target"}
WITHIN = {"first": ("original", "target"), "last": ("target", "original")}


def within_title(name: str) -> str:
    """What a path within a class is called."""
    start, other = WITHIN[name]
    return f"path within the class of the {start}, towards the {other}"


def start_of(measured: Measured, name: str) -> torch.Tensor:
    """Embedding that a path within a class keeps to, fp64, [n]."""
    return measured.ends[0 if name == "first" else 1]


def kept(measured: Measured, name: str) -> int:
    """How many steps of a path within a class are made before the first point that is not matched."""
    beyond = np.flatnonzero(~(measured.claimed[name] <= measured.goal))
    return int(beyond[0]) - 1 if len(beyond) else len(measured.claimed[name]) - 1


def connected(measured: Measured, name: str) -> tuple[int, float]:
    """Steps before the first segment that leaves the connected tolerance, and the largest |f - f(start)| in any."""
    curve = measured.curves[name]
    apart = curve.distances(start_of(measured, name))
    width = curve.inside + 1
    largest = torch.maximum(apart[:-1].reshape(-1, width).amax(dim=1), apart[width::width]).cpu().numpy()
    beyond = np.flatnonzero(~(largest <= measured.task.params.connected * measured.yardstick.median))
    return (int(beyond[0]) if len(beyond) else len(largest)), float(largest.max())


def summary_of(measured: Measured) -> dict[str, eqv.Scalar]:
    """Scalars of one pair."""
    summary: dict[str, eqv.Scalar] = {}

    def add(name: str, value: float | torch.Tensor, unit: str, description: str, group: str) -> None:
        summary[name] = eqv.Scalar(float(value), unit, description, group=group)

    median, ends = measured.yardstick.median, measured.ends
    original, target, matched = (
        x.double() for x in (measured.task.samples[0], measured.task.samples[1], measured.matched)
    )
    apart = torch.linalg.vector_norm(target - original)
    group = "original, target and matched"
    add(
        "apart", torch.linalg.vector_norm(ends[1] - ends[0]) / median, "1", "|f(target) - f(original)|, relative", group
    )
    off = torch.linalg.vector_norm(measured.curves["line"].f[-1] - ends[1])
    add("matched", off / median, "1", "|f(matched) - f(target)|, relative", group)
    add("match_tolerance", measured.task.params.match_goal, "1", "tolerance of the match, relative", group)
    if measured.within:
        add("tolerance", measured.task.params.tolerance, "1", "tolerance of paths within classes, relative", group)
    add("apart_l2", apart, "pixel", "L2 between original and target", group)
    add("matched_l2", torch.linalg.vector_norm(matched - original), "pixel", "L2 between original and matched", group)

    for name, group in LINES.items():
        curve = measured.curves[name]
        deviations, to_start = curve.deviations(), curve.cosines(ends[0])
        add(f"{name}_linearity", 1 - deviations.max(), "1", "linearity: 1 - largest deviation from the chord", group)
        add(f"{name}_deviation", deviations.square().mean().sqrt(), "1", "rms deviation, over the chord", group)
        add(f"{name}_detour", curve.detour, "1", "length of the embedding's way over the chord", group)
        add(f"{name}_cosine", to_start[-1], "1", "cosine of f(original) with f at the end", group)
        add(f"{name}_cosine_smallest", to_start.min(), "1", "smallest cosine with f(original) on the way", group)
        if curve.predicted is not None:
            changes = curve.predicted.diff() != 0
            add(f"{name}_classes", changes.sum(), "1", "changes of the predicted class on the way", group)
    for name in measured.within:
        _add_within(measured, name, float(apart), summary)
    _add_spaces(measured, summary)
    group = "cost"
    add("equivalents", sum(measured.equivalents.values()), "1", "forward-pass equivalents of match and paths", group)
    add("jacobians", sum(measured.jacobians.values()), "1", "Jacobians of match and paths", group)
    summary |= measured.yardstick.summary()
    against = "fp32 against fp64" if measured.task.precision == "fp32" else "machine epsilon x |f(x)|"
    add("noise", measured.noise, "embedding", f"of an embedding, {against}", "noise floor")
    return summary


def _add_within(measured: Measured, name: str, apart: float, summary: dict[str, eqv.Scalar]) -> None:
    group = within_title(name)

    def add(key: str, value: float | torch.Tensor, unit: str, description: str) -> None:
        summary[f"{name}_{key}"] = eqv.Scalar(float(value), unit, description, group=group)

    curve, median = measured.curves[name], measured.yardstick.median
    other = measured.task.samples[1 if name == "first" else 0].double().flatten()
    nodes = curve.nodes.flatten(1)
    start = start_of(measured, name)
    left = torch.linalg.vector_norm(nodes - other, dim=1)
    moved = torch.linalg.vector_norm(nodes - nodes[0], dim=1)
    add("left", left[-1], "pixel", f"L2 from its end to the {WITHIN[name][1]}")
    add("left_share", left[-1] / apart, "1", "the same over L2 between the two images")
    add("nearest_share", left.min() / apart, "1", "the same of the nearest point")
    add("moved", moved[-1], "pixel", "L2 from its start to its end")
    add("moved_relative", moved[-1] / measured.yardstick.pixel_l2, "1", "over the median between reference images")
    drift = torch.linalg.vector_norm(curve.at_nodes - start, dim=1)
    steps, between = connected(measured, name)
    add("drift", drift.max() / median, "1", "|f(z) - f(start)| at points, largest, relative")
    add("between", between / median, "1", "between points too, largest seen, relative")
    add("cosine", curve.cosines(start).min(), "1", "smallest cosine with f(start), between points too")
    count = len(nodes) - 1
    add("kept", kept(measured, name) / count, "1", "share of the steps made before a point fails to match")
    add("connected", steps / count, "1", "share of the steps made before it leaps out of the class")
    if curve.predicted is not None:
        share = (curve.predicted == curve.predicted[0]).double().mean()
        add("class_kept", share, "1", "points with the class of the start, share")


def _add_spaces(measured: Measured, summary: dict[str, eqv.Scalar]) -> None:
    k = next(iter(measured.turnings.values())).from_start.shape[1]
    group = f"normal spaces, {k} leading right singular vectors"

    def add(key: str, value: float, unit: str, description: str) -> None:
        summary[key] = eqv.Scalar(value, unit, description, group=group)

    titles = {
        "line": "original to matched",
        "first": "within the class of the original",
        "last": "within the class of the target",
    }
    for name, turned in measured.turnings.items():
        add(f"{name}_angle", float(np.median(turned.from_start[-1])), "rad", f"{titles[name]}: end to start, median")
        add(f"{name}_angle_next", float(np.median(turned.to_next)), "rad", "between neighbors, median")
        add(f"{name}_overlap", float(turned.overlap[-1]), "1", "overlap of end and start, mean squared cosine")
        add(f"{name}_space_error", float(turned.error.max()), "1", "sine of the largest error of a space")
    add("random_angle", float(np.median(measured.random)), "rad", "independent random spaces, median")
    m = measured.task.samples[0].numel()
    add("random_overlap", k / m, "1", "their overlap, k / m")
