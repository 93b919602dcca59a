"""Figures of the nullwalk probe, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.groups import Group, bundle, groups, left_out, lines_of

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAIN, SECOND, THIRD, GREY = "#c1440e", "#2a6f97", "#6a994e", "#7f7f7f"
#: Images of the strip, at most.
SHOWN = 8


def draw(arrays: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures by title; ``Figure`` objects of no window and no pyplot state, so that nothing has to be closed.

    Args:
        arrays: Arrays of a result or of a stored unit, by name.
    """
    from matplotlib.figure import Figure

    figures = {}
    if len(_data(arrays, "distance")) > 1:
        course = Figure(figsize=(8.0, 3.6), layout="constrained")
        left, right = course.subplots(1, 2)
        _distance(left, arrays)
        _drift(right, arrays)
        figures["Distance and drift along the walk"] = course
    points = _data(arrays, "points")
    if points.ndim == 4 and points.shape[1] in (1, 3):
        strip = Figure(figsize=(8.0, 2.1), layout="constrained")
        _strip(strip, arrays)
        figures["Inputs of one embedding"] = strip
    return figures


def draw_overview(results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> dict[str, Figure]:
    """Distance and drift of all walks; nothing for a single one, which `draw` shows."""
    from matplotlib.figure import Figure

    if len(results) < 2:
        return {}
    figures = {}
    for group in groups(results):
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _distances(left, group)
        _drifts(right, group)
        figure.set_label(
            f"{lines_of([group], 'walk')} In a median, a walk that has ended keeps its last value. Left: distance of "
            "the input from its start. Right: that of its embedding, and of the same change with shuffled coordinates."
        )
        figure.suptitle(", ".join(filter(None, (group.label("walk"), left_out(results)))), fontsize=9)
        figures[", ".join(filter(None, ("Distance and drift of all walks", group.setting)))] = figure
    return figures


def _distances(axes: Axes, group: Group) -> None:
    """How far each walk is from its start, over the median distance of reference images."""
    import numpy as np

    def over(arrays: Mapping[str, Any], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(len(values), dtype=float), values / float(_data(arrays, "reference_l2")[0])

    along = [over(arrays, np.append(0, np.cumsum(_data(arrays, "length")))) for _, arrays in group.units]
    straight = [over(arrays, _data(arrays, "distance")) for _, arrays in group.units]
    bundle(axes, along, SECOND, "along the walk", hold=True)
    bundle(axes, straight, MAIN, "straight, $|z - x|$", hold=True)
    axes.axhline(1, color=GREY, linewidth=0.9, linestyle="--")
    axes.set(xlabel="step", ylabel="L2 from the start, over the median\nbetween reference images (dashed)")
    _finish(axes)


def _drifts(axes: Axes, group: Group) -> None:
    """Drift of each walk and of its shuffled control, over the yardstick."""
    import numpy as np

    for name, label, colour in (("drift_shuffled", "coordinates shuffled", SECOND), ("drift", "the walk", MAIN)):
        courses = []
        for _, arrays in group.units:
            values = _data(arrays, name)[1:] / _data(arrays, "reference_quantiles")[50]
            if len(values):
                courses.append((np.arange(1, len(values) + 1, dtype=float), np.maximum(values, np.finfo(float).tiny)))
        bundle(axes, courses, colour, label, hold=True)
    arrays = group.units[0][1]
    quantiles = _data(arrays, "reference_quantiles")
    axes.axhspan(quantiles[5] / quantiles[50], quantiles[95] / quantiles[50], color=GREY, alpha=0.25, linewidth=0)
    tolerance = float(_data(arrays, "goal")[0]) / quantiles[50]
    axes.axhline(tolerance, color=MAIN, linewidth=0.9, linestyle="--", label="tolerance")
    axes.set(
        yscale="log", xlabel="step", ylabel="$|f(z) - f(x)|$ over the yardstick\n(band: 5 to 95% of reference pairs)"
    )
    _finish(axes)


def _data(arrays: Mapping[str, Any], name: str) -> np.ndarray:
    import numpy as np

    return np.asarray(arrays[name].data)


def _distance(axes: Axes, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    straight, length = _data(arrays, "distance"), _data(arrays, "length")
    steps = np.arange(len(straight))
    reference = float(_data(arrays, "reference_l2")[0])
    axes.plot(steps, np.append(0, np.cumsum(length)), color=SECOND, linewidth=1.2, label="along the walk")
    axes.plot(steps, straight, color=MAIN, linewidth=1.4, marker=".", label="straight, $|z - x|$")
    axes.axhline(reference, color=GREY, linewidth=0.9, linestyle="--", label="median between reference images")
    axes.set(xlabel=f"step, n = {len(length)}", ylabel="distance from the start, pixel (L2)")
    _finish(axes)


def _drift(axes: Axes, arrays: Mapping[str, Any]) -> None:
    """Drift of the walk far below that of its controls, so on a log axis; the start, which has none, is left out."""
    import numpy as np

    quantiles = _data(arrays, "reference_quantiles")
    median = quantiles[50]
    steps = np.arange(1, len(_data(arrays, "drift")))
    floor = np.finfo(float).tiny
    axes.axhspan(quantiles[5] / median, quantiles[95] / median, color=GREY, alpha=0.25, linewidth=0)
    for name, label, colour in (
        ("drift_random", "as far in a random direction", GREY),
        ("drift_shuffled", "coordinates shuffled", SECOND),
        ("drift", "the walk, at points", MAIN),
    ):
        values = np.maximum(_data(arrays, name)[1:] / median, floor)
        axes.plot(steps, values, color=colour, linewidth=1.3, marker=".", label=label)
    between = np.maximum(_data(arrays, "between") / median, floor)
    axes.plot(steps - 0.5, between, color=THIRD, linestyle="none", marker="_", label="between points, largest")
    tolerance = float(_data(arrays, "goal")[0]) / median
    axes.axhline(tolerance, color=MAIN, linewidth=0.9, linestyle="--", label="tolerance")
    axes.set(yscale="log", xlabel=f"step, n = {len(steps)}", ylabel="$|f(z) - f(x)|$ over the yardstick")
    axes.set_title("band: 5 to 95% of reference pairs", fontsize=8)
    _finish(axes)


def _finish(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _strip(figure: Figure, arrays: Mapping[str, Any]) -> None:
    """Stored points side by side, with what the encoder takes them for, and the goal if there is one."""
    import numpy as np

    points, steps = _data(arrays, "points"), _data(arrays, "point_step")
    low, high = _data(arrays, "input_range")
    median = _data(arrays, "reference_quantiles")[50]
    drift = _data(arrays, "drift") / median
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), SHOWN)).round().astype(int))
    shown = [(points[k], _title(arrays, int(steps[k]), drift)) for k in chosen]
    if "target" in arrays:
        shown.append((_data(arrays, "target"), "target"))
    for number, (axes, (image, title)) in enumerate(
        zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True)
    ):
        unit = np.clip((image - low) / (high - low), 0, 1)
        if len(unit) == 1:
            axes.imshow(unit[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        else:
            axes.imshow(unit.transpose(1, 2, 0), interpolation="nearest")
        axes.set_title(title, fontsize=8)
        axes.set(xlabel="column", ylabel="row, pixel" if number == 0 else "", xticks=[], yticks=[])
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)


def _title(arrays: Mapping[str, Any], step: int, drift: np.ndarray) -> str:
    title = "start" if step == 0 else f"step {step}\ndrift {drift[step]:.1e}"
    if "predicted_names" in arrays:
        title += f"\nclass {_data(arrays, 'predicted_names')[step]}"
    return title
