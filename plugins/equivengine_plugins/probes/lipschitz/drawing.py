"""Figures of the lipschitz probe, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.groups import bundle, data, finish, groups, left_out, legend_above, lines_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BALLS = {"l2": "L2 ball", "linf": "L-infinity ball"}
MAIN, SECOND, GREY = "#c1440e", "#2a6f97", "#444444"


def draw(arrays: Mapping[str, Any]) -> dict[str, Figure]:
    """Paths of s_1 over steps, one figure for each ball, by title; no pyplot state, so nothing has to be closed.

    Args:
        arrays: Arrays of a result or of a stored unit, by name.
    """
    from matplotlib.figure import Figure

    figures = {}
    for norm, title in BALLS.items():
        if f"path_{norm}" not in arrays:
            continue
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        _ascents(figure.subplots(), arrays, norm)
        figure.set_label(
            f"Ascents over the {title}, a line for each start: every point is a lower bound of the constant of Eq. 6."
        )
        figures[f"Largest singular value over the {title}"] = figure
    return figures


def _ascents(axes: Axes, arrays: Mapping[str, Any], norm: str) -> None:
    for k, values in enumerate(data(arrays, f"path_{norm}").T):
        axes.plot(
            values,
            color=MAIN if k == 0 else SECOND,
            linewidth=1.2,
            marker=".",
            markersize=3,
            label={0: "from x", 1: "from random points"}.get(k),
        )
    if f"certified_{norm}" in arrays:  # not in results of before that array
        certified = float(data(arrays, f"certified_{norm}")[0])
        axes.axhline(certified, color=GREY, linewidth=0.9, linestyle=":", label="shown by two points, less roundoff")
    axes.axhline(
        float(data(arrays, "s_at_x")[0]), color=GREY, linewidth=0.9, linestyle="--", label="$s_1$ at the image x"
    )
    axes.set(yscale="log", xlabel="step of the ascent", ylabel="$s_1(J(z))$, embedding / pixel")
    _whole_steps(axes)
    finish(axes)


def draw_overview(results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> dict[str, Figure]:
    """How far s_1 rises above that of the image, of all images; nothing for a single one, which `draw` shows."""
    from matplotlib.figure import Figure

    balls = [norm for norm in BALLS if all(f"path_{norm}" in arrays for _, arrays in results)]
    if len(results) < 2 or not balls:
        return {}
    found = groups(results)
    figure = Figure(figsize=(8.0 if len(balls) > 1 else 5.0, 3.4), layout="constrained")
    for axes, norm in zip(figure.subplots(1, len(balls), sharey=True, squeeze=False)[0], balls, strict=True):
        for group in found:
            courses = []
            for _, arrays in group.units:
                best = data(arrays, f"path_{norm}").max(axis=1) / data(arrays, "s_at_x")[0]
                courses.append((_steps(best), best))
            bundle(axes, courses, group.colour, group.label("image"), hold=True)
        axes.axhline(1.0, color=GREY, linewidth=0.9, linestyle="--", label="at the image")
        axes.set(yscale="log", xlabel="step of the ascent", ylabel="largest $s_1(J(z))$ over $s_1$ at the image")
        axes.set_title(BALLS[norm], fontsize=9)
        axes.yaxis.set_tick_params(labelleft=True)
        _whole_steps(axes)
        finish(axes, legend=False)
    legend_above(figure, figure.axes[0], columns=3)
    figure.set_label(f"{lines_of(found, 'image')} Of all starts the largest: a lower bound of the constant of Eq. 6.")
    return {", ".join(filter(None, ("Largest singular value over balls, all images", left_out(results)))): figure}


def _steps(values: Any) -> Any:
    import numpy as np

    return np.arange(len(values))


def _whole_steps(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
