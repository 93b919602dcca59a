"""Figures over the units of a run: which of them are drawn, by setting, and how courses share axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equivengine as eqv

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Units of one setting that an overview reads, at most; settings that it draws, at most.
MOST_UNITS, MOST_SETTINGS = 50, 8
#: For settings in no order: vermilion, blue, black, sky blue, orange, purple, green, gray; after Okabe and Ito (2008),
#: whose colors are told apart in all common forms of color blindness.
COLOURS = ("#c1440e", "#2a6f97", "#222222", "#56b4e9", "#e69f00", "#aa4499", "#117733", "#7f7f7f")


@dataclass(frozen=True)
class Group:
    """Units of one setting.

    Attributes:
        setting: What sets its parameters apart, as in ``"rate=0.01"``; empty if there is only one setting.
        units: Those that are drawn, each with its arrays by name: the first ones, in the order of the plan.
        total: How many there are.
        colour: To draw them in.
    """

    setting: str
    units: tuple[tuple[eqv.Unit, Mapping[str, Any]], ...]
    total: int
    colour: Any

    def counted(self, noun: str) -> str:
        """``"n = 3 pairs"``, or ``"first 50 of 200 pairs"``."""
        if len(self.units) < self.total:
            return f"first {len(self.units)} of {self.total:,} {noun}s"
        return f"n = {self.total} {noun}{'s' * (self.total != 1)}"

    def label(self, noun: str) -> str:
        """For a legend: the setting and how many units."""
        return ", ".join(filter(None, (self.setting, self.counted(noun))))


def groups(results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]], most: int = MOST_UNITS) -> list[Group]:
    """The units by setting, in the order of the plan; of each the first ``most``, of settings the first ones.

    Where one number is all that differs (a learning rate), colors follow its order.
    """
    found: dict[str, list[tuple[eqv.Unit, Mapping[str, Any]]]] = {}
    for words, (unit, arrays) in zip(eqv.settings([unit for unit, _ in results]), results, strict=True):
        found.setdefault(words, []).append((unit, arrays))
    settings = list(found)[:MOST_SETTINGS]
    return [
        Group(setting, tuple(found[setting][:most]), len(found[setting]), colour)
        for setting, colour in zip(settings, _colours(settings), strict=True)
    ]


def left_out(results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> str:
    """What a title must say of settings that are not drawn; empty if all are."""
    count = len(dict.fromkeys(unit.params for unit, _ in results))
    return f"first {MOST_SETTINGS} of {count} settings" if count > MOST_SETTINGS else ""


def _colours(settings: Sequence[str]) -> list[Any]:
    values = [_number(setting) for setting in settings]
    if len(settings) < 3 or None in values:
        return list(COLOURS[: len(settings)])
    from matplotlib import colormaps

    order = sorted(range(len(values)), key=lambda place: values[place] or 0.0)
    shades = {place: rank / (len(values) - 1) for rank, place in enumerate(order)}
    return [colormaps["plasma"](0.02 + 0.8 * shades[place]) for place in range(len(values))]


def _number(setting: str) -> float | None:
    """0.01 of ``"rate=0.01"``; None if more differs, or no number."""
    name, _, text = setting.partition("=")
    try:
        return float(text) if name else None
    except ValueError:
        return None


def data(arrays: Mapping[str, Any], name: str) -> np.ndarray:
    """Values of an array, read once."""
    import numpy as np

    return np.asarray(arrays[name].data)


def bundle(
    axes: Axes, courses: Sequence[tuple[np.ndarray, np.ndarray]], colour: Any, label: str, *, hold: bool = False
) -> None:
    """Courses (x, y) of several units as thin lines, with their median as a thick one where there are at least three.

    Args:
        axes: Where to draw.
        courses: Ascending x and y of each.
        colour: Of all lines.
        label: For the legend.
        hold: Whether a course keeps its last value beyond its end, as that of a solver that has stopped does; otherwise
            the median ends where the first course does.
    """
    import numpy as np

    several = len(courses) > 2
    for number, (x, y) in enumerate(courses):
        axes.plot(
            x,
            y,
            color=colour,
            linewidth=0.7 if several else 1.5,
            alpha=0.45 if several else 1.0,
            label=None if several or number else label,
        )
    if not several:
        return
    ends = [x[-1] for x, _ in courses]
    grid = np.unique(np.concatenate([x for x, _ in courses]))
    grid = grid[(grid >= max(x[0] for x, _ in courses)) & (grid <= (max(ends) if hold else min(ends)))]
    if len(grid) > 2000:
        grid = grid[np.unique(np.geomspace(1, len(grid), 2000).astype(int) - 1)]
    middle = np.median([np.interp(grid, x, y) for x, y in courses], axis=0)
    axes.plot(grid, middle, color=colour, linewidth=2.0, label=f"{label}, median")


def lines_of(found: Sequence[Group], noun: str) -> str:
    """What the lines of `bundle` are, for a caption."""
    several = max(len(group.units) for group in found) > 2
    return f"Thin: each {noun}; thick: the median of {noun}s." if several else f"A line for each {noun}."


def legend_above(figure: Figure, axes: Axes, columns: int) -> None:
    """The legend of some axes above the figure, where it covers no curve."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, frameon=False, fontsize=8, ncols=columns, loc="outside upper center", columnspacing=1.2
    )


def finish(axes: Axes, *, legend: bool = True, **place: Any) -> None:
    """Legend without a frame, no spines at the top and right."""
    if legend:
        axes.legend(frameon=False, fontsize=8, **place)
    axes.spines[["top", "right"]].set_visible(False)
