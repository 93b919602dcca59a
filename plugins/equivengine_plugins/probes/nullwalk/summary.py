"""The numbers of one walk, in the order in which they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

import equivengine as eqv

if TYPE_CHECKING:
    from equivengine_plugins.probes.nullwalk.measure import Measured

CONTROLS = {"shuffled": "its coordinates shuffled", "random": "a random direction of equal length"}


def summary_of(measured: Measured) -> dict[str, eqv.Scalar]:
    """Scalars of one walk."""
    summary: dict[str, eqv.Scalar] = {}

    def add(name: str, value: float | torch.Tensor, unit: str, description: str, group: str) -> None:
        summary[name] = eqv.Scalar(float(value), unit, description, group=group)

    fresh, controls, yardstick = measured.fresh, measured.controls, measured.yardstick
    distance = torch.linalg.vector_norm(measured.moved, dim=1)
    steps, pixels, median = len(measured.points) - 1, yardstick.pixel_l2, yardstick.median

    group = "distance from the start, L2"
    add("straight", distance[-1], "pixel", "from start to end, straight", group)
    add("straight_relative", distance[-1] / pixels, "1", "over the median between images of reference pairs", group)
    add("furthest_relative", distance.max() / pixels, "1", "of the furthest point, likewise", group)
    add("path", measured.lengths.sum(), "pixel", "along the walk", group)
    add("path_relative", measured.lengths.sum() / pixels, "1", "over that median", group)
    add("progress", measured.progress[-1], "pixel", "along the wanted way", group)
    if measured.task.params.direction == "target":
        way = torch.linalg.vector_norm((measured.task.samples[1] - measured.points[0]).double())
        add("way_made", measured.progress[-1] / way, "1", "share of the way to the target", group)

    group = "drift |f(z) - f(x)| over the yardstick, fp64"
    add("drift_largest", fresh.drift.max() / median, "1", "at points, largest", group)
    add("drift_end", fresh.drift[-1] / median, "1", "at the end", group)
    if steps:
        add("between_largest", fresh.between.max() / median, "1", "between points, largest seen", group)
    add("tolerance", measured.task.params.tolerance, "1", "tolerance of both", group)
    if steps:
        group = "the same distance another way, drift over the yardstick"
        for kind, text in CONTROLS.items():
            add(f"drift_{kind}", controls.drift[kind][-1] / median, "1", f"z - x with {text}", group)
        group = "change by one step, over the yardstick, medians"
        add("change", controls.walked.median() / median, "1", "|f(z') - f(z)| of the walk", group)
        for kind, text in CONTROLS.items():
            add(f"change_{kind}", controls.change[kind].median() / median, "1", f"the step with {text}", group)
        add("control_length", min(controls.length.values()), "1", "smallest length realized over that wanted", group)
    _add_null_space(measured, summary)
    _add_looks(measured, summary)

    group = "cost"
    add("steps", steps, "1", "steps made", group)
    add("jacobians", measured.jacobians, "1", "Jacobians", group)
    add("equivalents", measured.equivalents, "1", "forward-pass equivalents", group)
    summary |= yardstick.summary()
    against = "fp32 against fp64" if measured.task.precision == "fp32" else "machine epsilon x |f(x)|"
    add("noise", fresh.noise, "embedding", f"of an embedding, {against}", "noise floor")
    return summary


def _add_null_space(measured: Measured, summary: dict[str, eqv.Scalar]) -> None:
    """How much room there is, and how much of it is used."""
    group = "null space"

    def add(name: str, value: float | torch.Tensor, description: str) -> None:
        summary[name] = eqv.Scalar(float(value), "1", description, group=group)

    m, n = measured.points[0].numel(), measured.task.encoder.spec.embedding_dim
    if measured.rank is not None:
        add("null_dim", m - measured.rank, "its dimension at the start, m - rank J")
    else:
        add("null_dim", m - n, "its dimension, at least (m - n)")
    add("null_share", summary["null_dim"].value / m, "share of the input dimensions")
    if measured.task.params.box:
        low, high = measured.task.encoder.spec.input_range
        for name, place in (("start", 0), ("end", -1)):
            point = measured.points[place]
            add(f"free_{name}", ((point > low) & (point < high)).double().mean(), f"pixels off the bounds, {name}")
    if len(measured.points) > 1:
        add("survived", (measured.lengths / measured.wanted).median(), "length of a step over that wanted, median")
        values = torch.linalg.svdvals(measured.points.double().diff(dim=0).flatten(1)).square()
        add("directions", values.sum().square() / values.square().sum(), "different directions among the steps (PR)")


def _add_looks(measured: Measured, summary: dict[str, eqv.Scalar]) -> None:
    """What the end looks like, to people and to the classifier."""
    shape, (low, high) = measured.task.encoder.input_shape, measured.task.encoder.spec.input_range
    if len(shape) == 3 and shape[0] in (1, 3) and len(measured.points) > 1:
        start, end = ((measured.points[k][None].double() - low) / (high - low) for k in (0, -1))
        group = "start against end"
        summary["psnr"] = eqv.Scalar(float(eqv.pictures.psnr(start, end)), "dB", "PSNR", group=group)
        summary["ssim"] = eqv.Scalar(float(eqv.pictures.ssim(start, end)), "1", "SSIM", group=group)
    classes = measured.fresh.classes
    if classes is not None:
        group = "predicted class"
        summary["class_start"] = eqv.Scalar(int(classes[0]), "1", "at the start, number", group=group)
        summary["class_end"] = eqv.Scalar(int(classes[-1]), "1", "at the end, number", group=group)
        kept = float((classes == classes[0]).double().mean())
        summary["class_kept"] = eqv.Scalar(
            kept, "1", "points with the class of the start, share", n=len(classes), group=group
        )
