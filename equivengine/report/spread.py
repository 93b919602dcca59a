"""How scalars are distributed over the units of a group, and which units a reader should look at first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from equivengine.contracts.wording import number
from equivengine.report.drawing import mathless
from equivengine.report.gathering import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: From so many units on, distributions say more than a median and its interval.
MANY = 30
#: Scalars whose distribution is shown where the probe names no headlines; units that are told of, at most.
NAMED, TOLD = 3, 16
LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Spread:
    """One scalar over many units.

    Attributes:
        name: Its name.
        title: A short title.
        unit: Unit.
        n: How many units could measure it.
        quantiles: At `LEVELS`.
        lowest: Place of the unit with the smallest value.
        highest: Place of that with the largest.
        values: float64 [n].
    """

    name: str
    title: str
    unit: str
    n: int
    quantiles: tuple[float, ...]
    lowest: int
    highest: int
    values: np.ndarray


@dataclass(frozen=True)
class Telling:
    """A unit that a reader should look at, and why."""

    name: str
    unit_id: str
    why: str


def spreads(group: Group, headlines: Mapping[str, str]) -> list[Spread]:
    """Distributions of the scalars that a probe names, or of its first ones; none of fewer than `MANY` units."""
    if group.count < MANY:
        return []
    scalars = {name: scalar for name, scalar in group.scalars.items() if not scalar.binary}  # a share says all of those
    named = {name: title for name, title in headlines.items() if name in scalars}
    if not named:
        named = {name: scalar.description for name, scalar in list(scalars.items())[:NAMED]}
    found = []
    for name, title in named.items():
        values = group.values(name)
        places = np.flatnonzero(np.isfinite(values))
        if len(places) < MANY:
            continue
        finite = values[places]
        found.append(
            Spread(
                name,
                title,
                group.scalars[name].unit,
                len(places),
                tuple(float(value) for value in np.quantile(finite, LEVELS)),
                int(places[finite.argmin()]),
                int(places[finite.argmax()]),
                finite,
            )
        )
    return found


def telling(group: Group, found: Sequence[Spread]) -> list[Telling]:
    """Units that did not converge or failed a check, then those with the smallest and the largest values."""
    if group.count < 2:
        return []
    kinds = [[(place, "did not converge") for place in group.unconverged_at]]
    for tally in group.checks.values():
        kinds.append([(place, f"failed the check: {tally.description}") for place in tally.failed])
    # One of each kind after the other, so that none crowds out the rest.
    reasons = [each for row in zip_longest(*kinds) for each in row if each is not None]
    ends = []
    for spread in found:
        low, high = spread.quantiles[0], spread.quantiles[-1]
        if low < high:
            ends += [(spread.lowest, f"smallest {spread.title}: {number(low)}")]
            ends += [(spread.highest, f"largest {spread.title}: {number(high)}")]
    told: dict[int, list[str]] = {}
    for place, why in (*reasons[: max(0, TOLD - len(ends))], *ends):
        told.setdefault(place, []).append(why)
    return [
        Telling(group.names[place], group.unit_ids[place], "; ".join(dict.fromkeys(whys)))
        for place, whys in list(told.items())[:TOLD]
    ]


def draw(found: Sequence[Spread], noun: str) -> Figure:
    """Histograms side by side, with the median and the middle half and nine tenths marked.

    Args:
        found: Scalars that are not the same for all units.
        noun: What a unit is.
    """
    from matplotlib.figure import Figure

    columns = min(3, len(found))
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(found) :]:
        panel.set_visible(False)
    for panel, spread in zip(panels, found, strict=False):
        _histogram(panel, spread, noun)
    return figure


def _histogram(axes: Axes, spread: Spread, noun: str) -> None:
    values, (low, *_, high) = spread.values, spread.quantiles
    logarithmic = low > 0 and high >= 30 * low
    count = min(60, max(8, round(2 * spread.n ** (1 / 3))))  # Rice's rule
    if logarithmic:
        edges = np.geomspace(low, high, count + 1)
        edges[0], edges[-1] = low, high  # but for roundoff
    else:
        edges = np.linspace(low, high, count + 1)
    axes.hist(values, bins=edges.tolist(), color="#2a6f97", alpha=0.75)
    for level, style in ((1, ":"), (2, "--"), (3, "-"), (4, "--"), (5, ":")):
        axes.axvline(spread.quantiles[level], color="#c1440e", linestyle=style, linewidth=1.1)
    label = spread.title if spread.unit in ("", "1") else f"{spread.title}, {spread.unit}"
    axes.set(xlabel=mathless(label), ylabel=f"{noun}s", xscale="log" if logarithmic else "linear")
    axes.set_title(f"n = {spread.n:,}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
