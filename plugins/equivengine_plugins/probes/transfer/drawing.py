"""Figures of the transfer probe, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Pairs and classes that a matrix shows, at most.
MOST_PAIRS, MOST_CLASSES = 24, 20
#: Bars of the rates: variant, what it is compared with, whether equality counts, label, color.
BARS = (
    ("matched", "target", True, "matched: target's class", "#2a6f97"),
    ("png", "target", True, "re-read PNG: target's class", "#7fb2d0"),
    ("original", "target", True, "before: target's class", "#7f7f7f"),
    ("matched", "original", True, "matched: original's class", "#c1440e"),
    ("control", "original", False, "random change: another class", "#6a994e"),
)


def draw(arrays: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures by title; ``Figure`` objects of no window and no pyplot state, so that nothing has to be closed.

    Args:
        arrays: Arrays of a result or of a stored unit, by name.
    """
    from matplotlib.figure import Figure

    heads, titles = _texts(arrays, "head"), _texts(arrays, "head_title")
    figures = {}
    for head, title in zip(heads, titles, strict=True):
        rows = min(len(_data(arrays, f"probabilities_{head}")), MOST_PAIRS)
        figure = Figure(figsize=(8.0, 2.0 + 0.24 * rows), layout="constrained")
        _matrices(figure, arrays, head)
        figure.set_label("A row for each pair, dark where the head is sure; a ring at what it takes the target for.")
        figures[f"Classes before and after matching: {title}"] = figure
    rates = Figure(figsize=(max(6.4, 1.3 * len(heads) + 1.5), 4.2), layout="constrained")
    _rates(rates.subplots(), arrays, heads, titles)
    rates.set_label(
        "Shares of all pairs, converged or not, with Wilson's 95% intervals, by what pairs that share images are worth."
    )
    figures["Predicted classes, by head"] = rates
    return figures


def _data(arrays: Mapping[str, Any], name: str) -> np.ndarray:
    import numpy as np

    return np.asarray(arrays[name].data)


def _texts(arrays: Mapping[str, Any], name: str) -> list[str]:
    return [str(value) for value in _data(arrays, name)]


def _matrices(figure: Figure, arrays: Mapping[str, Any], head: str) -> None:
    """Class probabilities of originals and of matched inputs; rings mark the class predicted for the target."""
    import numpy as np

    variants = _texts(arrays, "variant")
    probabilities = _data(arrays, f"probabilities_{head}")[:MOST_PAIRS]
    predicted = _data(arrays, f"predicted_{head}")[:MOST_PAIRS].astype(str)
    classes = np.array(_classes(arrays, head, probabilities.shape[2]))
    columns = np.arange(len(classes))
    if len(classes) > MOST_CLASSES:  # those that are predicted, the most probable ones first
        seen = np.flatnonzero(np.isin(classes, predicted))
        columns = np.sort(seen[np.argsort(-probabilities[:, :, seen].sum(axis=(0, 1)), kind="stable")][:MOST_CLASSES])
    names = [_short(f"{a} → {b}") for a, b in zip(*(_ends(arrays, end) for end in ("original", "target")), strict=True)]
    wanted = predicted[:, variants.index("target")]
    panels = figure.subplots(1, 2, sharey=True)
    for axes, variant in zip(panels, ("original", "matched"), strict=True):
        values = probabilities[:, variants.index(variant)][:, columns]
        shown = axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        for row, name in enumerate(wanted):
            place = np.flatnonzero(classes[columns] == name)
            if len(place):
                axes.plot(place[0], row, "o", markersize=7, markerfacecolor="none", markeredgecolor="#c1440e")
        short = [_short(str(name), 16) for name in classes[columns]]
        turned = max(map(len, short)) > 2
        axes.set_xticks(range(len(columns)), short, rotation=60 if turned else 0, ha="right" if turned else "center")
        axes.set_yticks(range(len(values)), names[: len(values)], fontsize=8)
        axes.set(xlabel="class", title=f"{variant}, n = {len(values)}")
    panels[0].set_ylabel("pair, original → target")
    figure.colorbar(shown, ax=panels, shrink=0.85, label="class probability; rings: the target's class")


def _classes(arrays: Mapping[str, Any], head: str, count: int) -> list[str]:
    """Names of the classes of a head; which axis they lie on is told by the dimensions, where these are stored."""
    axis = tuple(getattr(arrays[f"probabilities_{head}"], "dims", ()))[-1:]
    for name in (*axis, {"own": "class_own", "text": "class_text"}.get(head, "class_reference")):
        if name in arrays:
            return _texts(arrays, name)
    return [str(number) for number in range(count)]


def _ends(arrays: Mapping[str, Any], end: str) -> list[str]:
    labels, ids = _texts(arrays, f"{end}_label"), _texts(arrays, f"{end}_id")
    return [f"{one} ({label})" if label else one for one, label in zip(ids, labels, strict=True)]


def _short(text: str, length: int = 48) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _rates(axes: Axes, arrays: Mapping[str, Any], heads: list[str], titles: list[str]) -> None:
    """Shares of pairs with Wilson's 95% intervals."""
    import numpy as np

    from equivengine.statistics import independent_pairs, wilson

    # Results of version 1 do not say which images are the same; their names stand in.
    known = "image" if "original_image" in arrays else "id"
    worth = independent_pairs(_data(arrays, f"original_{known}"), _data(arrays, f"target_{known}"))
    variants = _texts(arrays, "variant")
    bars = [bar for bar in BARS if bar[0] in variants]
    width = 0.8 / len(bars)
    count = 0
    for number, (one, other, same, label, colour) in enumerate(bars):
        shares, below, above = [], [], []
        for head in heads:
            predicted = _data(arrays, f"predicted_{head}").astype(str)
            hits = (predicted[:, variants.index(one)] == predicted[:, variants.index(other)]) == same
            count, share = len(hits), float(hits.mean())
            low, high = wilson(share * worth, worth)
            shares.append(share)
            below.append(share - low)
            above.append(high - share)
        places = np.arange(len(heads)) + (number - (len(bars) - 1) / 2) * width
        axes.bar(
            places, shares, width * 0.92, yerr=[below, above], color=colour, label=label, ecolor="#333333", capsize=2
        )
    axes.set_xticks(range(len(heads)), [_short(title, 26) for title in titles], rotation=20, ha="right")
    axes.set(ylim=(0, 1.02), ylabel=f"share of pairs; 95% intervals\nn = {count}, worth {worth:.1f}", xlabel="head")
    axes.figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
