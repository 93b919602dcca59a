"""Figures of the path probe, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.groups import Group, bundle, groups, left_out, legend_above, lines_of

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAIN, SECOND, THIRD, GREY = "#c1440e", "#2a6f97", "#6a994e", "#7f7f7f"
ENDS = {"original": "$f$(original)", "target": "$f$(target)"}
ROWS = {
    "line": "original to matched",
    "images": "original to target",
    "first": "class of the original",
    "last": "class of the target",
}
WITHIN = ("first", "last")
#: Images of a row, at most.
SHOWN = 9


def draw(arrays: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures by title; ``Figure`` objects of no window and no pyplot state, so that nothing has to be closed.

    Args:
        arrays: Arrays of a result or of a stored unit, by name.
    """
    from matplotlib.figure import Figure

    lines = Figure(figsize=(8.0, 3.2), layout="constrained")
    for axes, end in zip(lines.subplots(1, 2), ENDS, strict=True):
        _line(axes, arrays, end)
    legend_above(lines, lines.axes[0], columns=2)
    lines.set_label(
        "z moves on the straight line from the original; linearity is 1 for an even change of the embedding."
    )
    figures = {"Embeddings along the straight line": lines}
    if "first_t" in arrays:
        classes = Figure(figsize=(8.0, 3.2), layout="constrained")
        for axes, name in zip(classes.subplots(1, 2), WITHIN, strict=True):
            _within(axes, arrays, name)
        classes.set_label("Dots: where the embedding was matched; lines between them: straight, and not matched.")
        courses = Figure(figsize=(8.0, 3.2), layout="constrained")
        left, right = courses.subplots(1, 2)
        _left(left, arrays)
        _drift(right, arrays)
        courses.set_label("Left: distances of inputs. Right: how far the embedding is from that of the start.")
        figures["Embeddings along paths within a class"] = classes
        figures["Distance and drift along paths within a class"] = courses
    spaces = Figure(figsize=(6.4, 3.6), layout="constrained")
    _angles(spaces.subplots(), arrays)
    spaces.set_label("Spans of the leading right singular vectors; bands: quartiles of the angles.")
    figures["Turning of the normal space"] = spaces
    nodes = _data(arrays, "line_nodes")
    if nodes.ndim == 4 and nodes.shape[1] in (1, 3):
        rows = [name for name in ROWS if f"{name}_nodes" in arrays]
        images = Figure(figsize=(8.0, 0.4 + len(rows)), layout="constrained")
        _images(images, arrays, rows)
        images.set_label("Above each image: its share of the way.")
        figures["Inputs along the paths"] = images
    return figures


def draw_overview(results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> dict[str, Figure]:
    """Cosines of all pairs; nothing for a single one, which `draw` shows."""
    from matplotlib.figure import Figure

    if len(results) < 2:
        return {}
    figures = {}
    for group in groups(results):
        lines = Figure(figsize=(8.0, 3.4), layout="constrained")
        for axes, end in zip(lines.subplots(1, 2, sharey=True), ENDS, strict=True):
            _lines(axes, group, end)
        legend_above(lines, lines.axes[0], columns=2)
        lines.set_label(f"{lines_of([group], 'pair')} z moves from the original to the matched input.")
        title = ", ".join(filter(None, (group.label("pair"), left_out(results))))
        lines.supxlabel(f"straight line from original to matched; {title}", fontsize=9)
        figures[", ".join(filter(None, ("Straight lines of all pairs", group.setting)))] = lines
        if any("first_t" not in arrays for _, arrays in group.units):
            continue
        classes = Figure(figsize=(8.0, 3.4), layout="constrained")
        for axes, name in zip(classes.subplots(1, 2, sharey=True), WITHIN, strict=True):
            _classes(axes, group, name)
        legend_above(classes, classes.axes[0], columns=3)
        classes.set_label(f"{lines_of([group], 'pair')} z moves within the class, towards the other image.")
        classes.supxlabel(f"share of the path; {title}", fontsize=9)
        figures[", ".join(filter(None, ("Paths within classes of all pairs", group.setting)))] = classes
    return figures


def _lines(axes: Axes, group: Group, end: str) -> None:
    """Cosine with one end along the line to the match, as in Fig. 6 of the paper."""
    import numpy as np

    courses = [(_data(arrays, "line_t"), _data(arrays, f"line_cosine_{end}")) for _, arrays in group.units]
    scores = [1 - _data(arrays, "line_deviation").max() for _, arrays in group.units]
    bundle(axes, courses, MAIN, f"n = {len(courses)} pairs, linearity {np.median(scores):.2f}")
    starts = np.median([(y[0], y[-1]) for _, y in courses], axis=0)
    axes.plot([0, 1], starts, color=GREY, linestyle="--", linewidth=1.2, label="a straight line between its ends")
    axes.set(xlabel="share of the line", ylabel=f"cosine of $f(z)$ and {ENDS[end]}")
    axes.yaxis.set_tick_params(labelleft=True)
    axes.spines[["top", "right"]].set_visible(False)


def _classes(axes: Axes, group: Group, name: str) -> None:
    """Cosines along paths within a class, as in Fig. 7 of the paper, and how far the input goes meanwhile."""
    own, other = ("original", "target") if name == "first" else ("target", "original")
    for end, colour, title in ((own, MAIN, "the start"), (other, SECOND, "the other image")):
        courses = [(_data(arrays, f"{name}_t"), _data(arrays, f"{name}_cosine_{end}")) for _, arrays in group.units]
        bundle(axes, courses, colour, f"cosine with that of {title}")
    bundle(axes, [_moved(arrays, name) for _, arrays in group.units], THIRD, "how far z has gone")
    axes.set(xlabel=f"share of the path to the {other}", ylabel="cosine, or share of the distance\nbetween the images")
    axes.set_title(f"class of the {own}", fontsize=9)
    axes.yaxis.set_tick_params(labelleft=True)
    axes.spines[["top", "right"]].set_visible(False)


def _moved(arrays: Mapping[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """How far the input of a path has gone, over L2 between the two images."""
    import numpy as np

    moved = _data(arrays, f"{name}_moved")
    return np.linspace(0, 1, len(moved)), moved / _data(arrays, f"{name}_left")[0]


def _data(arrays: Mapping[str, Any], name: str) -> np.ndarray:
    import numpy as np

    return np.asarray(arrays[name].data)


def _line(axes: Axes, arrays: Mapping[str, Any], end: str) -> None:
    """Cosine with one end, as in Fig. 6 of the paper; also along the line to the target image itself."""
    for name, label, colour, style in (
        ("line", "to the matched input", MAIN, "-"),
        ("images", "to the target image", GREY, "--"),
    ):
        t = _data(arrays, f"{name}_t")
        score = 1 - _data(arrays, f"{name}_deviation").max()
        values = _data(arrays, f"{name}_cosine_{end}")
        axes.plot(t, values, color=colour, linestyle=style, linewidth=1.4, label=f"{label}, linearity {score:.2f}")
    axes.set(xlabel=f"share of the straight line, n = {len(t)}", ylabel=f"cosine of $f(z)$ and {ENDS[end]}")
    axes.spines[["top", "right"]].set_visible(False)


def _within(axes: Axes, arrays: Mapping[str, Any], name: str) -> None:
    """Cosines along a path within a class, as in Fig. 7 of the paper, between its points too."""
    t = _data(arrays, f"{name}_t")
    own, other = ("original", "target") if name == "first" else ("target", "original")
    for end, colour in ((own, MAIN), (other, SECOND)):
        values = _data(arrays, f"{name}_cosine_{end}")
        axes.plot(t, values, color=colour, linewidth=1.3, label=f"with {ENDS[end]}")
        width = (len(t) - 1) // (len(_data(arrays, f"{name}_left")) - 1)
        axes.plot(t[::width], values[::width], color=colour, linestyle="none", marker=".", markersize=5)
    steps = len(_data(arrays, f"{name}_left")) - 1
    axes.set(
        xlabel=f"share of the path to the {other}, n = {steps} step{'s' * (steps != 1)}",
        ylabel="cosine",
        title=f"matched to $f$({own}) at each dot",
    )
    axes.title.set_fontsize(9)
    _finish(axes)


def _left(axes: Axes, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    for name, colour in (("first", MAIN), ("last", SECOND)):
        left, moved = _data(arrays, f"{name}_left"), _data(arrays, f"{name}_moved")
        t = np.linspace(0, 1, len(left))
        axes.plot(t, left, color=colour, marker=".", linewidth=1.3, label=f"{ROWS[name]}: to the other image")
        axes.plot(t, moved, color=colour, linestyle="--", linewidth=1.0, label=f"{ROWS[name]}: from the start")
    steps = len(t) - 1
    axes.set(xlabel=f"share of the path, n = {steps} step{'s' * (steps != 1)}", ylabel="distance, pixel (L2)")
    axes.set_ylim(0, 1.6 * axes.get_ylim()[1])  # room for the legend
    _finish(axes)


def _drift(axes: Axes, arrays: Mapping[str, Any]) -> None:
    """Drift out of the class at and between points; the start itself, which has none, is left out."""
    import numpy as np

    quantiles = _data(arrays, "reference_quantiles")
    median = quantiles[50]
    axes.axhspan(quantiles[5] / median, quantiles[95] / median, color=GREY, alpha=0.25, linewidth=0)
    for name, colour in (("first", MAIN), ("last", SECOND)):
        t, drift = _data(arrays, f"{name}_t"), _data(arrays, f"{name}_drift") / median
        axes.plot(t, np.where(t > 0, drift, np.nan), color=colour, linewidth=1.1, label=ROWS[name])
    goal = float(_data(arrays, "goal")[0]) / median
    axes.axhline(goal, color=GREY, linestyle="--", linewidth=0.9, label="tolerance at points")
    axes.set(
        yscale="log",
        xlabel=f"share of the path, n = {len(t)} points",
        ylabel="$|f(z) - f$(start)$|$\nover the yardstick",
    )
    axes.set_title("band: 5 to 95% of reference pairs", fontsize=8)
    _finish(axes)


def _angles(axes: Axes, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    for name, colour in (("line", THIRD), ("first", MAIN), ("last", SECOND)):
        if f"{name}_angles" not in arrays:
            continue
        t, angles = _data(arrays, f"{name}_space_t"), np.degrees(_data(arrays, f"{name}_angles"))
        axes.plot(t, np.median(angles, axis=1), color=colour, marker=".", linewidth=1.3, label=ROWS[name])
        low, high = np.quantile(angles, [0.25, 0.75], axis=1)
        axes.fill_between(t, low, high, color=colour, alpha=0.15, linewidth=0)
    chance = float(np.degrees(np.median(_data(arrays, "random_angles"))))
    axes.axhline(chance, color=GREY, linestyle="--", linewidth=0.9, label="independent random subspaces")
    axes.set(
        xlabel="share of the path",
        ylabel=f"principal angles with the start's, degrees\n(median and quartiles of n = {angles.shape[1]})",
    )
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _images(figure: Figure, arrays: Mapping[str, Any], rows: Sequence[str]) -> None:
    """Points of each path in a row, as in Fig. 11 and 12 of the paper."""
    import numpy as np

    low, high = _data(arrays, "input_range")
    columns = min(SHOWN, max(len(_data(arrays, f"{name}_nodes")) for name in rows))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for row, name in zip(grid, rows, strict=True):
        nodes, t = _data(arrays, f"{name}_nodes"), _data(arrays, f"{name}_nodes_t")
        chosen = np.unique(np.linspace(0, len(nodes) - 1, min(len(nodes), columns)).round().astype(int))
        for axes in row[len(chosen) :]:
            axes.set_axis_off()
        for axes, k in zip(row, chosen, strict=False):
            unit = np.clip((nodes[k] - low) / (high - low), 0, 1)
            if len(unit) == 1:
                axes.imshow(unit[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            else:
                axes.imshow(unit.transpose(1, 2, 0), interpolation="nearest")
            axes.set_title(f"{t[k]:.2f}", fontsize=8)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(ROWS[name].replace(" of the ", "\nof the ").replace(" to ", "\nto "), fontsize=8)
