"""Figures of the projection probe, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Labels that get a color of their own; components of the scree plot; at most.
MOST_LABELS, MOST_RANKS = 20, 30
GREY, ARROW = "#b0b0b0", "#222222"


def draw(arrays: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures by title; ``Figure`` objects of no window and no pyplot state, so that nothing has to be closed.

    Args:
        arrays: Arrays of a result or of a stored unit, by name.
    """
    from matplotlib.figure import Figure

    figures = {}
    if _data(arrays, "coordinates").shape[1] > 1:
        scatter = Figure(figsize=(7.2, 5.4), layout="constrained")
        _scatter(scatter.subplots(), arrays)
        scatter.set_label(
            "Arrows lead from originals to where they were matched to; names stand at the median of a class."
        )
        figures["First two principal components"] = scatter
    scree = Figure(figsize=(6.4, 4.0), layout="constrained")
    _scree(scree.subplots(), arrays)
    scree.set_label("Bars: 95% bootstrap intervals over images, along fixed components.")
    figures["Explained variance"] = scree
    return figures


def _data(arrays: Mapping[str, Any], name: str) -> np.ndarray:
    import numpy as np

    return np.asarray(arrays[name].data)


def _scatter(axes: Axes, arrays: Mapping[str, Any]) -> None:
    """References as dots, images as squares, colored by label; arrows from originals to where they were matched to."""
    import numpy as np

    points, labels = _data(arrays, "coordinates"), _data(arrays, "label").astype(str)
    behind, behind_labels = np.zeros((0, 2)), np.zeros(0, dtype=str)
    if "reference_coordinates" in arrays:
        behind, behind_labels = _data(arrays, "reference_coordinates"), _data(arrays, "reference_label").astype(str)
    colours = _colours([*labels, *behind_labels])
    for label, colour in colours.items():
        mine, others = labels == label, behind_labels == label
        name = label or "no label"
        _dots(axes, behind[others, :2], s=10, color=colour, alpha=0.55, linewidths=0)
        _dots(axes, points[mine, :2], s=42, marker="s", color=colour, edgecolors="black", linewidths=0.8)
        axes.scatter([], [], s=20, color=colour, label=name)
        if label and colour is not GREY:
            _name(axes, label, np.concatenate([points[mine, :2], behind[others, :2]]))
    axes.scatter([], [], s=42, marker="s", color="white", edgecolors="black", label=f"images, n = {len(points)}")
    if len(behind):
        axes.scatter([], [], s=10, color=GREY, label=f"references, n = {len(behind)}")
    if "pair_matched" in arrays:
        ends = _data(arrays, "pair_matched")
        originals, targets = (points[_data(arrays, f"pair_{end}").astype(int)] for end in ("original", "target"))
        _dots(
            axes, targets[:, :2], s=150, marker="o", facecolors="none", edgecolors=ARROW, linewidths=1.0, label="target"
        )
        _dots(axes, ends[:, :2], s=45, marker="x", color=ARROW, linewidths=1.4, label=f"matched, n = {len(ends)}")
        for start, end in zip(originals, ends, strict=True):
            axes.annotate(
                "",
                xy=end[:2],
                xytext=start[:2],
                arrowprops={"arrowstyle": "->", "color": ARROW, "lw": 0.9, "alpha": 0.7},
            )
    share = _data(arrays, "explained")
    axes.set(
        xlabel=f"component 1, embedding ({100 * share[0]:.0f}% of the variance)",
        ylabel=f"component 2, embedding ({100 * share[1]:.0f}% of the variance)",
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    axes.spines[["top", "right"]].set_visible(False)


def _name(axes: Axes, name: str, points: np.ndarray) -> None:
    """The name of a class in its middle: ten colors are not told apart by everybody."""
    import numpy as np
    from matplotlib import patheffects

    x, y = np.median(points, axis=0)
    axes.text(
        x,
        y,
        name if len(name) <= 14 else name[:13] + "…",
        fontsize=9,
        fontweight="bold",
        ha="center",
        va="center",
        zorder=5,
        path_effects=[patheffects.withStroke(linewidth=2.5, foreground="white")],
    )


def _dots(axes: Axes, points: np.ndarray, **style: Any) -> None:
    """Points [N, 2]."""
    axes.scatter(points[:, 0], points[:, 1], **style)


def _colours(labels: list[str]) -> dict[str, Any]:
    """A color for each label, gray for unknown ones; where there are too many labels, all are gray."""
    from matplotlib import colormaps

    known = sorted({label for label in labels if label})
    chosen: dict[str, Any] = {}
    if len(known) <= MOST_LABELS:
        table = colormaps["tab10" if len(known) <= 10 else "tab20"]
        chosen = {label: table(place) for place, label in enumerate(known)}
    else:
        chosen = dict.fromkeys(known, GREY)
    if "" in labels:
        chosen[""] = GREY
    return chosen


def _scree(axes: Axes, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    share, ends = _data(arrays, "explained")[:MOST_RANKS], _data(arrays, "explained_interval")[:MOST_RANKS]
    loose = _data(arrays, "degenerate")[:MOST_RANKS].astype(bool)
    rank = np.arange(1, len(share) + 1)
    below, above = np.maximum(share - ends[:, 0], 0), np.maximum(ends[:, 1] - share, 0)
    for which, filled, name in ((~loose, "#2a6f97", "direction determined"), (loose, "white", "direction arbitrary")):
        if which.any():
            axes.errorbar(
                rank[which],
                share[which],
                yerr=[below[which], above[which]],
                fmt="o",
                markersize=4,
                color="#2a6f97",
                markerfacecolor=filled,
                linewidth=1.0,
                capsize=2,
                label=name,
            )
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="component", ylabel="share of the variance; 95% intervals", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
