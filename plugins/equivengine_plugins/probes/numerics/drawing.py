"""Figures of the numerics probe, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"fp32": "#c1440e", "fp64": "#2a6f97", "bf16": "#444444", "tf32": "#6a994e", "tf32x3": "#7b5ea7"}
KINDS = (
    ("random", "random", "#7f7f7f"),
    ("normal", "normal space", "#c1440e"),
    ("null", "null space", "#2a6f97"),
)


def draw(arrays: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures by title; ``Figure`` objects of no window and no pyplot state, so that nothing has to be closed.

    Args:
        arrays: Arrays of a result or of a stored unit, by name.
    """
    from matplotlib.figure import Figure

    steps = Figure(figsize=(6.4, 4.0), layout="constrained")
    _u_curves(steps.subplots(), arrays)
    radius = Figure(figsize=(6.4, 4.0), layout="constrained")
    _radius_curves(radius.subplots(), arrays)
    return {"Error of central differences": steps, "Radius of the linear approximation": radius}


def _data(arrays: Mapping[str, Any], name: str) -> np.ndarray:
    import numpy as np

    return np.asarray(arrays[name].data)


def _band(axes: Axes, x: np.ndarray, rows: np.ndarray, colour: str, label: str) -> None:
    """Median over directions, with the range in which all of them lie."""
    import numpy as np

    rows = np.where(rows > 0, rows, np.nan)
    seen = np.isfinite(rows).any(axis=1)
    x, rows = x[seen], rows[seen]
    axes.fill_between(x, np.nanmin(rows, axis=1), np.nanmax(rows, axis=1), color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, np.nanmedian(rows, axis=1), color=colour, linewidth=1.3, label=label)


def _u_curves(axes: Axes, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    h = _data(arrays, "steps")
    for precision in ("fp32", "fp64"):
        colour = COLOURS[precision]
        _band(axes, h, _data(arrays, f"error_{precision}"), colour, f"central difference, {precision}")
        axes.axvline(_data(arrays, f"step_{precision}")[0], color=colour, linewidth=0.8, linestyle="--")
    for name in (name for name in arrays if name.startswith("jvp_error_")):
        precision = name.removeprefix("jvp_error_")
        axes.axhline(
            float(np.median(_data(arrays, name))),
            color=COLOURS.get(precision, "#444444"),
            linewidth=0.9,
            linestyle=":",
            label=f"JVP, {precision}",
        )
    axes.set(xscale="log", yscale="log", xlabel="step size h, pixel (L2)", ylabel="relative error against the fp64 JVP")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _radius_curves(axes: Axes, arrays: Mapping[str, Any]) -> None:
    lengths, rms, level = (_data(arrays, name) for name in ("lengths", "rms", "level"))
    for kind, label, colour in KINDS:
        if f"{kind}_error" in arrays:
            relative = _data(arrays, f"{kind}_error") / (rms[0] * lengths[:, None])
            _band(axes, lengths, relative, colour, label)
    axes.axhline(level[0], color="#444444", linewidth=0.8, linestyle="--")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="|d|, pixel (L2)",
        ylabel=r"$|f(x + d) - f(x) - J d|\ /\ (|d|\,|J|_F / \sqrt{m})$",
    )
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
