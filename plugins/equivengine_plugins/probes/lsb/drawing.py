"""Figures of the lsb probe, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWS = (("uniform", "random, uniform", "#7f7f7f"), ("signs", "random, largest steps", "#2a6f97"))
MARKS = (
    ("truncation", "truncation, median", "#6a994e", "--"),
    ("pixel", "one pixel", "#7b5ea7", ":"),
    ("singular", "signs of $v_1$", "#444444", "-."),
    ("worst", "worst found", "#c1440e", "-"),
)


def draw(arrays: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures by title; ``Figure`` objects of no window and no pyplot state, so that nothing has to be closed.

    Args:
        arrays: Arrays of a result or of a stored unit, by name.
    """
    from matplotlib.figure import Figure

    changes = Figure(figsize=(6.4, 4.0), layout="constrained")
    _histogram(changes.subplots(), arrays)
    figures = {"Change of the embedding by 8-bit levels": changes}
    if "sensitivity" in arrays:
        pixels = Figure(figsize=(8.4, 3.8), layout="constrained")
        left, right = pixels.subplots(1, 2)
        _sensitivity(left, arrays)
        _worst(right, arrays)
        figures["Sensitivity of single pixels, and the worst change"] = pixels
    return figures


def _data(arrays: Mapping[str, Any], name: str) -> np.ndarray:
    import numpy as np

    return np.asarray(arrays[name].data)


def _histogram(axes: Axes, arrays: Mapping[str, Any]) -> None:
    """Random draws as histograms on a log axis, since the worst change lies far out; the others as lines."""
    import numpy as np

    drawn = {kind: _data(arrays, kind) for kind, _, _ in DRAWS}
    marks = {kind: float(np.median(_data(arrays, kind))) for kind, _, _, _ in MARKS}
    everything = np.concatenate([*drawn.values(), list(marks.values())])
    positive = everything[everything > 0]
    if len(positive):
        bins = np.geomspace(positive.min() / 1.05, positive.max() * 1.05, 60).tolist()
        for kind, label, colour in DRAWS:
            axes.hist(drawn[kind], bins=bins, color=colour, alpha=0.6, label=f"{label}, n = {len(drawn[kind])}")
        axes.set_xscale("log")
    for kind, label, colour, style in MARKS:
        if marks[kind] > 0:
            axes.axvline(marks[kind], color=colour, linestyle=style, linewidth=1.3, label=label)
    axes.set(xlabel="$|f(x + d) - f(x)|$, embedding", ylabel="draws, count")
    axes.figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=3)
    axes.spines[["top", "right"]].set_visible(False)


def _sensitivity(axes: Axes, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    norms = np.sqrt((_data(arrays, "sensitivity") ** 2).sum(axis=0))
    shown = axes.imshow(norms, cmap="magma", interpolation="nearest")
    row, column = _data(arrays, "pixel_index")[1:]
    axes.plot(column, row, marker="o", markersize=9, markerfacecolor="none", markeredgecolor="#39d353")
    axes.figure.colorbar(shown, ax=axes, shrink=0.85, label="$|J e_j|$ per level, embedding")
    axes.set(xlabel="column, pixel", ylabel="row, pixel", title="ring: the one pixel")


def _worst(axes: Axes, arrays: Mapping[str, Any]) -> None:
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    move = _data(arrays, "worst_levels").astype(np.int64) - _data(arrays, "levels")
    mean = move.mean(axis=0)
    limit = max(1, int(np.abs(move).max()))
    shown = axes.imshow(mean, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    label = "change, levels" if len(move) == 1 else "change, levels, mean of channels"
    ticks = MaxNLocator(integer=len(move) == 1)
    axes.figure.colorbar(shown, ax=axes, shrink=0.85, label=label, ticks=ticks)
    axes.set(xlabel="column, pixel", ylabel="row, pixel", title="the worst change found")
