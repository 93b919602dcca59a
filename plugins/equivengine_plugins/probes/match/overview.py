"""Figures of the match probe over the pairs of a run, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.groups import Group, bundle, data, finish, groups, left_out, legend_above, lines_of
from equivengine_plugins.probes.match.drawing import BAND, GAIN, show

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Pairs whose images are shown, of all settings together, at most.
MOST_ROWS = 9
#: Forms of an input: name of its embedding, label, marker.
FORMS = (("original", "original", "o"), ("matched", "matched", "D"), ("png", "matched, from its PNG", "x"))


def draw_overview(results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> dict[str, Figure]:
    """Figures by title; ``Figure`` objects of no window and no pyplot state."""
    from matplotlib.figure import Figure

    if not results:
        return {}
    found, rest = groups(results), left_out(results)
    figures = {}
    traced = [group for group in found if all("trace_distance" in arrays for _, arrays in group.units)]
    if traced:
        courses = Figure(figsize=(8.0, 3.6), layout="constrained")
        _courses(courses, traced, rest)
        courses.set_label(f"{lines_of(traced, 'pair')} In a median, a pair that has ended keeps its last value.")
        figures["Course of the matching, all pairs"] = courses
    if len(results) > 1:
        height = 1.5 + 0.22 * len(FORMS) * len(found)
        reached = Figure(figsize=(6.4, max(2.6, height)), layout="constrained")
        _reached(reached.subplots(), found, rest)
        reached.set_label("A mark for each pair, a bar at the median of pairs; the band holds 90% of reference pairs.")
        figures["Distance to the target, before and after"] = reached
    rows = _rows(found)
    if rows:
        images = Figure(figsize=(6.4, 0.6 + 1.2 * len(rows)), layout="constrained")
        _images(images, rows, len(results))
        images.set_label(
            f"Differences are |matched - original|. Times {GAIN}, white is 1/{GAIN} of the range of pixels or more; "
            "scaled, the largest of the pair."
        )
        figures["Originals, targets and matched inputs"] = images
    return figures


def _courses(figure: Figure, found: Sequence[Group], rest: str) -> None:
    """Loss, cosine and mean difference after each step, as in Fig. 5 of the paper, on common axes."""
    import numpy as np

    panels = (
        ("loss, embedding$^2$\n$|f(x) - f(x_t)|^2 / 2$", "log", lambda a: 0.5 * data(a, "trace_distance") ** 2),
        ("cosine of $f(x)$ and $f(x_t)$", "linear", lambda a: data(a, "trace_cosine")),
        ("mean $|x - x_0|$, pixel", "linear", lambda a: data(a, "trace_mean")),
    )
    longest = [max(len(data(arrays, "trace_distance")) for _, arrays in group.units) for group in found]
    # Courses of different lengths are compared over the logarithm of steps; step 0 then stands at 0.5.
    decades = max(longest) > 10 * min(longest) or max(longest) > 1000
    for number, (axes, (label, scale, values_of)) in enumerate(zip(figure.subplots(1, 3), panels, strict=True)):
        lowest = np.inf
        for group in found:
            courses = []
            for _, arrays in group.units:
                values = values_of(arrays)
                steps = np.arange(len(values), dtype=float)
                steps[0] = 0.5 if decades else 0.0
                kept = np.isfinite(values) & ((values > 0) | (scale == "linear"))
                if kept.any():
                    courses.append((steps[kept], values[kept]))
                    lowest = min(lowest, float(values[kept].min()))
            if courses:
                bundle(axes, courses, group.colour, group.label("pair"), hold=True)
        axes.set(xlabel="step", ylabel=label, yscale=scale if np.isfinite(lowest) else "linear")
        if decades:
            axes.set(xscale="log", xlabel="step (the start stands at 0.5)")
        finish(axes, legend=False)
        if number == 0:
            legend_above(figure, axes, columns=2)
    if rest:
        figure.supxlabel(rest, fontsize=8)


def _reached(axes: Axes, found: Sequence[Group], rest: str) -> None:
    """Relative distance of every pair, a row for each form of the input; a bar at the median."""
    import numpy as np

    ticks: list[tuple[float, str]] = []
    place = 0.0
    for group in found:
        yardsticks = [data(arrays, "reference_quantiles")[50] for _, arrays in group.units]
        for form, label, marker in FORMS:
            gaps = [
                float(np.linalg.norm(_embedding(arrays, form) - _embedding(arrays, "target"))) / yardstick
                for (_, arrays), yardstick in zip(group.units, yardsticks, strict=True)
                if f"embedding_{form}" in arrays
            ]
            if not gaps:
                continue
            shown = np.maximum(gaps, 1e-9)
            axes.plot(
                shown, [place] * len(shown), marker, color=group.colour, markersize=4, alpha=0.6, linestyle="none"
            )
            axes.plot([np.median(shown)] * 2, [place - 0.35, place + 0.35], color=group.colour, linewidth=2)
            ticks.append((place, ", ".join(filter(None, (group.setting, label)))))
            place += 1
        place += 0.5
    quantiles = data(found[0].units[0][1], "reference_quantiles")
    axes.axvspan(quantiles[5] / quantiles[50], quantiles[95] / quantiles[50], color=BAND, alpha=0.25, linewidth=0)
    axes.set_yticks([tick for tick, _ in ticks], [label for _, label in ticks], fontsize=8)
    axes.invert_yaxis()
    counted = found[0].counted("pair") + (" of each setting" if len(found) > 1 else "")
    band = "band: 5 to 95% of reference pairs"
    axes.set(
        xscale="log",
        xlabel="$|f(x) - f(x_t)|$ over the median of reference pairs\n"
        + "; ".join(filter(None, (counted, "bars: medians", rest)))
        + f"\n{band}",
    )
    axes.xaxis.label.set_fontsize(8)
    finish(axes, legend=False)


def _embedding(arrays: Mapping[str, Any], name: str) -> np.ndarray:
    return data(arrays, f"embedding_{name}").astype(float)


def _rows(found: Sequence[Group]) -> list[tuple[str, Mapping[str, Any]]]:
    """Pairs whose images are shown: the first ones of each setting."""
    each = max(1, MOST_ROWS // len(found))
    rows = []
    for group in found:
        for unit, arrays in group.units[:each]:
            shape = arrays["original"].data.shape
            if len(shape) == 3 and shape[0] in (1, 3):
                ids = " to\n".join(sample.id for sample in unit.samples)
                rows.append(("\n".join(filter(None, (group.setting.replace(", ", "\n"), ids))), arrays))
    return rows[:MOST_ROWS]


def _images(figure: Figure, rows: Sequence[tuple[str, Mapping[str, Any]]], total: int) -> None:
    """Images side by side, a row for each pair, as in Fig. 1, 2, 8 and 13 of the paper."""
    import numpy as np

    columns = ("original", "target", "matched", f"difference\nx {GAIN}", "difference\nscaled")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for number, (line, (label, arrays)) in enumerate(zip(grid, rows, strict=True)):
        low, high = data(arrays, "input_range")
        unit = {
            name: (data(arrays, name) - low) / (high - low)
            for name in ("original", "target", "matched")
            if name in arrays
        }
        change = np.abs(unit["matched"] - unit["original"])
        unit[columns[3]] = GAIN * change
        unit[columns[4]] = change / max(float(change.max()), 1e-30)
        for axes, column in zip(line, columns, strict=True):
            axes.set(xticks=[], yticks=[])
            if number == 0:
                axes.set_title(column, fontsize=9)
            if column in unit:
                show(axes, unit[column])
            else:  # the target is a text
                axes.set_axis_off()
        line[0].set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
        line[3].set_xlabel(f"mean {change.mean():.2g}", fontsize=8)
        line[4].set_xlabel(f"largest {change.max():.2g}", fontsize=8)
    counted = f"{len(rows)} of {total} pair{'s' * (total != 1)}, in the order of the run"
    figure.supxlabel(f"{counted}; differences in shares of the range of pixels", fontsize=8)
