"""Figures of the spectrum probe, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.groups import Group, bundle, groups, left_out, lines_of

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

    other = _other(arrays)
    pair = other is not None
    spectrum = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = spectrum.subplots()
    _values(axes, arrays, "", ORIGINAL, "original" if pair else "singular values")
    if other is not None:
        _values(axes, arrays, f"{other}_", TARGET, other)
    axes.set(yscale="log", xlabel="index i", ylabel="$s_i$, embedding / pixel")
    _finish(axes)
    spectrum.set_label("Bands, where they can be seen, reach from the lower bound to the value plus its error.")
    figures = {"Singular values": spectrum}
    if other is not None:
        between = Figure(figsize=(6.4, 4.0), layout="constrained")
        _angles(between.subplots(), arrays, other)
        between.set_label("Angles between the spans of leading right singular vectors.")
        figures["Principal angles"] = between
    return figures


def draw_overview(results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> dict[str, Figure]:
    """Spectra of all images; nothing for a single unit, which `draw` shows."""
    from matplotlib.figure import Figure

    if len(results) < 2:
        return {}
    found, figures = groups(results), {}
    if len(found) > 1:
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        _side_by_side(figure.subplots(), found)
        figure.set_label(lines_of(found, "image"))
        figure.suptitle(left_out(results), fontsize=9)
        figures["Spectra side by side"] = figure
    for group in found:
        pair = _other(group.units[0][1]) is not None
        if len(found) > 1 and not pair:
            continue  # drawn above
        figure = Figure(figsize=(8.0, 3.6) if pair else (6.4, 4.0), layout="constrained")
        panels = figure.subplots(1, 1 + pair, squeeze=False)[0]
        _spectra(panels[0], group)
        if pair:
            _ratios(panels[1], group)
        right = " Right: singular values over those of the original at the same index, where both are above roundoff."
        figure.set_label(lines_of([group], "pair" if pair else "image") + right * pair)
        figure.suptitle(", ".join(filter(None, (group.setting, left_out(results)))), fontsize=9)
        figures[", ".join(filter(None, ("Spectra of all images", group.setting)))] = figure
    return figures


def _side_by_side(axes: Axes, found: Sequence[Group]) -> None:
    """The spectra of several models or settings on one axis; of pairs, those of the originals."""
    resolutions = []
    for group in found:
        courses, resolution = _courses(group, "")
        resolutions.append(resolution)
        bundle(axes, courses, group.colour, group.label("image"))
    _scaled(axes, min(resolutions))


def _spectra(axes: Axes, group: Group) -> None:
    """A line for each image, those of targets in their own color."""
    other = _other(group.units[0][1])
    courses, resolution = _courses(group, "")
    name = group.counted("image") if other is None else f"original, {group.counted('pair')}"
    bundle(axes, courses, ORIGINAL, name)
    if other is not None:
        courses, highest = _courses(group, f"{other}_")
        resolution = max(resolution, highest)
        bundle(axes, courses, TARGET, f"{other}, {group.counted('pair')}")
    _scaled(axes, resolution)


def _courses(group: Group, prefix: str) -> tuple[list[tuple[np.ndarray, np.ndarray]], float]:
    """Index and value for each unit, and the largest resolution of them."""
    import numpy as np

    values = [_data(arrays, f"{prefix}singular_values") for _, arrays in group.units]
    resolution = max(float(_data(arrays, f"{prefix}resolution")[0]) for _, arrays in group.units)
    # On a log axis zero is nowhere: values end a decade below the resolution.
    return [(np.arange(1, len(s) + 1), np.maximum(s, resolution / 10)) for s in values], resolution


def _scaled(axes: Axes, resolution: float) -> None:
    """Log axis, and the resolution where values come near it."""
    import numpy as np

    if any(np.asarray(line.get_ydata())[-1] < 100 * resolution for line in axes.get_lines()):
        axes.axhline(resolution, color=CHANCE, linewidth=0.9, linestyle="--", label="resolution: roundoff below")
    axes.set(yscale="log", xlabel="index i", ylabel="$s_i$, embedding / pixel")
    _finish(axes)


def _ratios(axes: Axes, group: Group) -> None:
    """The spectrum of each target, or match, over that of its original, where both are above roundoff."""
    import numpy as np

    other = _other(group.units[0][1])
    courses = []
    for _, arrays in group.units:
        original, target = _data(arrays, "singular_values"), _data(arrays, f"{other}_singular_values")
        count = min(len(original), len(target))
        floor = 10 * max(float(_data(arrays, f"{prefix}resolution")[0]) for prefix in ("", f"{other}_"))
        kept = np.minimum(original[:count], target[:count]) > floor
        courses.append((np.arange(1, count + 1)[kept], target[:count][kept] / original[:count][kept]))
    bundle(axes, [course for course in courses if len(course[0])], TARGET, group.counted("pair"))
    axes.axhline(1, color=CHANCE, linewidth=0.9, linestyle="--")
    words = "matched input" if other == "matched" else other
    axes.set(yscale="log", xlabel="index i", ylabel=f"$s_i$ of the {words}\nover that of the original")
    _finish(axes)


def _other(arrays: Mapping[str, Any]) -> str | None:
    """What the original was compared with; None if it was not."""
    return next((name for name in ("target", "matched") if f"{name}_singular_values" in arrays), None)


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


def _angles(axes: Axes, arrays: Mapping[str, Any], other: str) -> None:
    import numpy as np

    angles = _data(arrays, "principal_angles")
    index = np.arange(1, len(angles) + 1)
    axes.plot(
        index, np.degrees(angles), color=ORIGINAL, linewidth=1.3, marker=".", markersize=3, label=f"original, {other}"
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
