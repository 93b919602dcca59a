"""Figures of the spectrum probe, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORIGINAL, TARGET, CHANCE = "#c1440e", "#2a6f97", "#7f7f7f"


def draw(arrays: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures by title; ``Figure`` objects of no window and no pyplot state, so that nothing has to be closed.

    Args:
        arrays: Arrays of a result or of a stored unit, by name.
    """
    from matplotlib.figure import Figure

    pair = "target_singular_values" in arrays
    spectrum = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = spectrum.subplots()
    _values(axes, arrays, "", ORIGINAL, "original" if pair else "singular values")
    if pair:
        _values(axes, arrays, "target_", TARGET, "target")
    axes.set(yscale="log", xlabel="index i", ylabel="$s_i$, embedding / pixel")
    _finish(axes)
    figures = {"Singular values": spectrum}
    if pair:
        between = Figure(figsize=(6.4, 4.0), layout="constrained")
        _angles(between.subplots(), arrays)
        figures["Principal angles"] = between
    return figures


def _data(arrays: Mapping[str, Any], name: str) -> np.ndarray:
    import numpy as np

    return np.asarray(arrays[name].data)


def _values(axes: Axes, arrays: Mapping[str, Any], prefix: str, colour: str, label: str) -> None:
    """Values, the band in which they lie, and the resolution below which they are roundoff."""
    import numpy as np

    s, lower, error = (_data(arrays, f"{prefix}{name}") for name in ("singular_values", "lower", "error"))
    resolution = float(_data(arrays, f"{prefix}resolution")[0])
    index = np.arange(1, len(s) + 1)
    # On a log axis zero is nowhere: bands end, and values lie, a decade below the resolution.
    bottom = resolution / 10
    axes.fill_between(
        index, np.maximum(lower, bottom), np.maximum(s + error, bottom), color=colour, alpha=0.2, linewidth=0
    )
    axes.plot(index, np.maximum(s, bottom), color=colour, linewidth=1.3, marker=".", markersize=3, label=label)
    if s[-1] < 100 * resolution:
        axes.axhline(resolution, color=colour, linewidth=0.8, linestyle="--", label=f"resolution, {label}")


def _angles(axes: Axes, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    angles = _data(arrays, "principal_angles")
    index = np.arange(1, len(angles) + 1)
    axes.plot(
        index, np.degrees(angles), color=ORIGINAL, linewidth=1.3, marker=".", markersize=3, label="original, target"
    )
    axes.plot(
        index,
        np.degrees(_data(arrays, "random_angles")),
        color=CHANCE,
        linewidth=1.0,
        linestyle="--",
        label="random subspaces",
    )
    axes.set(ylim=(0, 92), xlabel="index", ylabel="principal angle, degrees")
    _finish(axes)


def _finish(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
