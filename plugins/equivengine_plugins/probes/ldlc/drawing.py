"""Figures of the ldlc probe, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.groups import Group, data, finish, groups, left_out, legend_above

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNIT = "embedding / pixel"
TANGENT = f"local directional Lipschitz constant, {UNIT}"
#: Kinds of random and followed directions: name, label, color.
KINDS = (
    ("null", "random, null space", "#2a6f97"),
    ("random", "random", "#7f7f7f"),
    ("gradient", "matching gradient", "#c1440e"),
)
SINGULAR = "#c1440e"
#: Values this far below the largest are zero but for roundoff, and not shown.
FLOOR = 1e-14


def draw(arrays: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures of one image, by title; ``Figure`` objects of no window and no pyplot state.

    Args:
        arrays: Arrays of a result or of a stored unit, by name.
    """
    from matplotlib.figure import Figure

    measured = {kind: data(arrays, f"{kind}_tangent") for kind, _, _ in KINDS}
    figures = {}
    if any(len(values) for values in measured.values()):
        pooled = Figure(figsize=(6.4, 4.0), layout="constrained")
        _on_one_axis(pooled.subplots(), measured)
        legend_above(pooled, pooled.axes[0], columns=len(KINDS))
        pooled.set_label("Histograms with bins of equal width in the logarithm; dashed: medians.")
        figures["Constants along three kinds of direction"] = pooled
        apart = Figure(figsize=(8.0, 3.2), layout="constrained")
        _on_their_own(apart, measured)
        apart.set_label("Linear axes, a range of its own for each kind; dashed: medians.")
        figures["The same distributions, each on its own axis"] = apart
    if len(data(arrays, "singular_tangent")):
        singular = Figure(figsize=(8.0, 3.6), layout="constrained")
        _singular(singular, arrays)
        singular.set_label("At the image itself, constants equal singular values; over a range, curvature lifts them.")
        figures["Constants along right singular vectors"] = singular
    return figures


def draw_overview(results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> dict[str, Figure]:
    """Distributions over all images, pooled, and image by image; nothing for a single image, which `draw` shows."""
    from matplotlib.figure import Figure

    if len(results) < 2:
        return {}
    found = groups(results)
    rest = left_out(results)
    figures = {}
    for group in found:
        each = [{kind: data(arrays, f"{kind}_tangent") for kind, _, _ in KINDS} for _, arrays in group.units]
        figure = Figure(figsize=(8.0, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        _pooled(left, each)
        _by_image(right, group, each)
        legend_above(figure, left, columns=len(KINDS))
        figure.set_label(
            "Left: the directions of all images together; dashed: medians. Right: for each image the median of each "
            "kind, with the range that holds 90% of its directions. Gradient directions are measured where the descent "
            "then is, where s_1 is another one."
        )
        left.set_title(", ".join(filter(None, (group.label("image"), rest))), fontsize=9)
        figures[", ".join(filter(None, ("Constants over images", group.setting)))] = figure
    return figures


def _on_one_axis(axes: Axes, measured: Mapping[str, np.ndarray]) -> None:
    """Histograms of equal bins in the logarithm, so that decades can be compared."""
    import numpy as np

    shown = {kind: values[values > 0] for kind, values in measured.items()}
    every = np.concatenate(list(shown.values()))
    if not len(every):
        every = np.ones(1)
    bins = np.geomspace(every.min() / 2, every.max() * 2, 90).tolist()
    for kind, label, colour in KINDS:
        values = shown[kind]
        if not len(values):
            continue
        weights = np.full(len(values), 1 / len(values))
        middle = float(np.median(values))
        axes.hist(values, bins, weights=weights, color=colour, alpha=0.8, label=f"{label}, n = {len(values):,}")
        axes.axvline(middle, color=colour, linewidth=0.9, linestyle="--", label=f"  median {middle:.2g}")
    axes.set(xscale="log", xlabel=TANGENT, ylabel="share of the directions of a kind")
    finish(axes, legend=False)


def _on_their_own(figure: Figure, measured: Mapping[str, np.ndarray]) -> None:
    """Linear axes, as in Fig. 4 of the paper."""
    import numpy as np

    panels = figure.subplots(1, len(KINDS))
    for axes, (kind, label, colour) in zip(panels, KINDS, strict=True):
        values = measured[kind]
        middle = float(np.median(values)) if len(values) else 0.0
        power = int(np.floor(np.log10(middle))) if middle > 0 else 0
        power = power if abs(power) > 2 else 0
        axes.hist(values / 10.0**power, 40, color=colour)
        axes.axvline(middle / 10.0**power, color="#222222", linewidth=0.9, linestyle="--")
        axes.set_title(f"{label}, n = {len(values):,}", fontsize=9)
        factor = f"$10^{{{power}}}$ " if power else ""
        axes.set(xlabel=f"constant, {factor}{UNIT}", ylabel="directions" if axes is panels[0] else "")
        axes.tick_params(labelsize=8)
        axes.locator_params(axis="x", nbins=4)
        finish(axes, legend=False)


def _singular(figure: Figure, arrays: Mapping[str, Any]) -> None:
    """Constants along right singular vectors and the singular values themselves, which they should equal (Fig. 3)."""
    import numpy as np

    s, along = data(arrays, "singular_values"), data(arrays, "singular_tangent")
    floor = 1e-7 * s[0]  # what lies below is roundoff in fp32
    left, right = figure.subplots(1, 2)
    index = np.arange(1, len(s) + 1)
    left.plot(index, np.maximum(s, floor), color="#222222", linewidth=1.2, label=f"singular values, n = {len(s)}")
    left.plot(
        index[: len(along)],
        np.maximum(along, floor),
        color=SINGULAR,
        linestyle="none",
        marker=".",
        markersize=5,
        label=f"constants, n = {len(along)}",
    )
    left.set(yscale="log", xlabel="index i", ylabel=f"$s_i$, and constant along $v_i$\n{UNIT}")
    finish(left)
    seen = s[: len(along)] > floor
    excess = along[seen] / s[: len(along)][seen] - 1
    right.plot(index[: len(along)][seen], excess, color=SINGULAR, linestyle="none", marker=".", markersize=5)
    right.axhline(0, color="#222222", linewidth=0.9)
    right.set(xlabel="index i", ylabel="constant along $v_i$ over $s_i$, minus 1")
    right.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    finish(right, legend=False)


def _pooled(axes: Axes, each: Sequence[Mapping[str, np.ndarray]]) -> None:
    import numpy as np

    _on_one_axis(axes, {kind: np.concatenate([measured[kind] for measured in each]) for kind, _, _ in KINDS})
    axes.set_xlabel(f"constant, {UNIT}")


def _by_image(axes: Axes, group: Group, each: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Median and central 90% of each image, with its largest singular value, above which no constant can be at x."""
    import numpy as np

    places = np.arange(1, len(each) + 1)
    top = [data(arrays, "singular_values")[0] for _, arrays in group.units]
    axes.plot(places, top, color="#222222", linestyle="none", marker="_", markersize=9, label="largest singular value")
    for kind, label, colour in reversed(KINDS):
        ends = np.array([np.quantile(m[kind], (0.05, 0.5, 0.95)) if len(m[kind]) else [np.nan] * 3 for m in each])
        axes.errorbar(
            places,
            ends[:, 1],
            yerr=[ends[:, 1] - ends[:, 0], ends[:, 2] - ends[:, 1]],
            color=colour,
            fmt="o",
            markersize=3.5,
            linewidth=1.0,
            label=label,
        )
    from matplotlib.ticker import MaxNLocator

    axes.set(yscale="log", xlabel="image, in the order of the run", ylabel=f"median, 5 to 95%, {UNIT}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(axes, loc="center right")
