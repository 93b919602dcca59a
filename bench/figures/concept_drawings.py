"""Figures of docs/concepts.md from what a run stores, each with the numbers that the page quotes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from concept_style import COLOURS, plain
from matplotlib.figure import Figure

Drawn = tuple[Figure, dict[str, str]]


def array(record: Any, name: str) -> np.ndarray:
    """A stored array of a unit."""
    return np.asarray(record.arrays[name].data)


def scalar(record: Any, name: str) -> float:
    """A stored scalar of a unit."""
    return float(record.summary[name].value)


def spectrum(records: list[Any]) -> Drawn:
    """Singular values, and what share of |J|_F^2 the leading ones hold."""
    (record,) = records
    s = array(record, "singular_values")
    index = np.arange(1, len(s) + 1)
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogy(index, s, ".", color=COLOURS[2], markersize=4)
    left.axhline(scalar(record, "resolution"), color=COLOURS[0], linewidth=0.8, linestyle="--")
    left.annotate("resolution: below it, roundoff", (1, scalar(record, "resolution") * 1.5), fontsize=8)
    left.set(xlabel="i", ylabel="singular value s_i, embedding / pixel", ylim=(s.max() * 1e-9, s.max() * 3))
    right.plot(index, np.cumsum(s**2) / (s**2).sum(), color=COLOURS[2])
    for name, label, colour in (
        ("stable_rank", "stable rank", COLOURS[4]),
        ("rank_90", "90% of |J|_F^2", COLOURS[1]),
        ("effective_rank", "effective rank", COLOURS[0]),
        ("rank", "rank", "#000000"),
    ):
        value = scalar(record, name)
        right.axvline(value, color=colour, linewidth=1, linestyle="--", label=f"{label}: {value:.3g}")
    right.set(xlabel="i", ylabel="share of |J|_F^2, cumulative", ylim=(0, 1.02))
    right.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(0.95, 0.1))
    plain(left, right)
    names = ("s_1", "s_median", "frobenius", "random_rms", "stable_rank", "effective_rank", "rank_90", "rank")
    numbers = {"n": f"{len(s)}", "m": f"{scalar(record, 'rank') + scalar(record, 'null_dim'):.0f}"}
    numbers |= {name: f"{scalar(record, name):.4g}" for name in (*names, "null_dim", "null_share", "resolution")}
    return figure, numbers


def ldlc(records: list[Any]) -> Drawn:
    """Constants along three kinds of direction; and how those of null directions depend on the range eps."""
    eps = {json.loads(record.unit.params)["eps"]: record for record in records}
    record = eps[1e-4]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    kinds = (("null", COLOURS[2]), ("random", COLOURS[1]), ("gradient", COLOURS[0]))
    found = {kind: array(record, f"{kind}_tangent") for kind, _ in kinds}
    bins = np.geomspace(min(v.min() for v in found.values()) / 2, max(v.max() for v in found.values()) * 2, 80)
    for kind, colour in kinds:
        left.hist(found[kind], bins, color=colour, alpha=0.85, label=f"{kind} ({len(found[kind])})")
    left.set(xscale="log", xlabel="LDLC for eps = 1e-4, embedding / pixel", ylabel="directions")
    left.legend(frameon=False, fontsize=8, loc="upper center")

    order = sorted(eps)
    for name, label, colour, line in (
        ("random", "random", COLOURS[1], "-"),
        ("noise_secant", "noise of a difference in fp32", COLOURS[3], ":"),
        ("null", "null: curvature", COLOURS[2], "-"),
        ("noise_null_secant", "noise of a difference in fp64", COLOURS[4], ":"),
        ("null_leakage", "null at alpha = 0: leakage", COLOURS[2], "--"),
    ):
        values = [scalar(eps[value], name) for value in order]
        right.loglog(order, values, color=colour, linestyle=line, marker=".", label=label)
    right.set(xlabel="range eps, pixels (L2)", ylabel="embedding / pixel")
    right.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    plain(left, right)
    names = ("random", "null", "gradient_first", "random_over_null", "gradient_first_over_random")
    numbers = {f"{name}, eps = 1e-4": f"{scalar(record, name):.3g}" for name in names}
    for value in order:
        numbers[f"random over null, eps = {value:g}"] = f"{scalar(eps[value], 'random_over_null'):.3g}"
    numbers["noise of a difference in fp32, eps = 1e-4"] = f"{scalar(record, 'noise_secant'):.2g}"
    # Of the order of roundoff: on another machine it is as small, and another number.
    numbers["log10 of leakage over random, eps = 1e-4"] = f"{np.log10(scalar(record, 'null_at_zero_over_random')):.0f}"
    return figure, numbers


def match(records: list[Any]) -> Drawn:
    """One original and one target, matched by three solvers: images, and distance over cost."""
    solved = {json.loads(record.unit.params)["solver"]: record for record in records}
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.7))
    some = solved["lm"]
    shown = {"original": array(some, "original"), "target": array(some, "target")}
    shown |= {f"matched: {solver}": array(record, "matched") for solver, record in solved.items()}
    for axes, (name, image) in zip(above.subplots(1, len(shown)), shown.items(), strict=True):
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        axes.set_title(name, fontsize=8)
        axes.axis("off")
    axes = below.subplots()
    numbers = {}
    for (solver, record), colour in zip(solved.items(), COLOURS, strict=False):
        distance = array(record, "trace_distance") / scalar(record, "yardstick")
        axes.loglog(np.maximum(array(record, "trace_equivalents"), 1), distance, color=colour, label=solver)
        numbers[f"{solver}: relative distance before"] = f"{scalar(record, 'relative_start'):.3g}"
        if solver != "lm":  # which ends in roundoff
            numbers[f"{solver}: relative distance"] = f"{scalar(record, 'relative_matched'):.2g}"
        numbers[f"{solver}: L2 of the change, pixels"] = f"{scalar(record, 'l2_matched'):.3g}"
        numbers[f"{solver}: mean change of a pixel"] = f"{scalar(record, 'mean_matched'):.2g}"
        numbers[f"{solver}: SSIM to the target"] = f"{scalar(record, 'ssim_target_matched'):.2g}"
        numbers[f"{solver}: class of the target, before and after"] = (
            f"{scalar(record, 'class_start'):.0f}  {scalar(record, 'class_matched'):.0f}"
        )
    numbers["lm: log10 of the relative distance"] = f"{np.log10(scalar(some, 'relative_matched')):.0f}"
    numbers["yardstick, embedding"] = f"{scalar(some, 'yardstick'):.3g}"
    numbers["median L2 between images of different classes, pixels"] = f"{scalar(some, 'yardstick_pixels'):.3g}"
    axes.set(xlabel="forward-pass equivalents", ylabel="|f(z) - f(target)| / yardstick", xlim=(10, None))
    axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return figure, numbers


def strip(figure: Any, images: np.ndarray, titles: list[str]) -> None:
    """Images [K, 1, H, W] in a row."""
    for axes, image, title in zip(figure.subplots(1, len(images)), images, titles, strict=True):
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=8)
        axes.axis("off")


def walk(records: list[Any]) -> Drawn:
    """Points of a walk, and how far the embedding is from the start on it and on two other ways of equal length."""
    (record,) = records
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.7))
    strip(above, array(record, "points"), [f"step {step:.0f}" for step in array(record, "point_step")])
    axes = below.subplots()
    yardstick, distance = scalar(record, "yardstick"), array(record, "distance")
    for name, label, colour in (
        ("drift_random", "random direction, as far", COLOURS[1]),
        ("drift_shuffled", "the same move, coordinates shuffled", COLOURS[0]),
        ("drift", "walk", COLOURS[2]),
    ):
        axes.semilogy(distance[1:], array(record, name)[1:] / yardstick, color=colour, label=label, marker=".")
    axes.axhline(scalar(record, "tolerance"), color="black", linewidth=0.8, linestyle="--")
    axes.set(xlabel="|z - x|, pixels (L2)", ylabel="|f(z) - f(x)| / yardstick")
    axes.legend(frameon=False, fontsize=8, loc="center right")
    plain(axes)
    names = ("null_dim", "straight", "straight_relative", "tolerance", "drift_shuffled", "ssim", "class_kept")
    numbers = {name: f"{scalar(record, name):.3g}" for name in names}
    largest = max(scalar(record, "drift_largest"), scalar(record, "between_largest"))
    numbers["largest drift, at points and between, at most"] = f"{np.ceil(largest * 1e3) / 1e3:.1g}"
    return figure, numbers


def path(records: list[Any]) -> Drawn:
    """Cosines along the straight line to a match, and along the path within the class of the original."""
    (record,) = records
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.7))
    nodes = array(record, "first_nodes")
    strip(above, nodes, [f"t = {t:.2f}" for t in np.linspace(0, 1, len(nodes))])
    sides = below.subplots(1, 2, sharey=True)
    for axes, name, title in (
        (sides[0], "line", "straight line from original to match"),
        (sides[1], "first", "path within the class of the original (images above)"),
    ):
        t = array(record, f"{name}_t")
        axes.plot(t, array(record, f"{name}_cosine_original"), color=COLOURS[2], label="with f(original)")
        axes.plot(t, array(record, f"{name}_cosine_target"), color=COLOURS[0], label="with f(target)")
        axes.set(xlabel="share of the way", title=title)
        axes.title.set_fontsize(9)
    sides[0].set_ylabel("cosine of f(z)")
    sides[0].legend(frameon=False, fontsize=8)
    plain(*sides)
    names = ("line_linearity", "images_linearity", "first_moved_relative", "first_left_share", "first_cosine")
    names += ("line_angle", "first_angle", "random_angle", "line_overlap", "first_overlap", "random_overlap")
    numbers = {name: f"{scalar(record, name):.3g}" for name in names}
    numbers["largest drift on the path, at most"] = f"{np.ceil(scalar(record, 'first_between') * 1e3) / 1e3:.1g}"
    return figure, numbers
