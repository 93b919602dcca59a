"""Figures of the lipschitz probe, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BALLS = {"l2": "L2 ball", "linf": "L-infinity ball"}


def draw(arrays: Mapping[str, Any]) -> dict[str, Figure]:
    """Paths of s_1 over steps, one figure for each ball, by title; no pyplot state, so nothing has to be closed.

    Args:
        arrays: Arrays of a result or of a stored unit, by name.
    """
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    at_x = float(np.asarray(arrays["s_at_x"].data)[0])
    figures = {}
    for norm, title in BALLS.items():
        if f"path_{norm}" not in arrays:
            continue
        path = np.asarray(arrays[f"path_{norm}"].data)
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for k, values in enumerate(path.T):
            start = "from x" if k == 0 else "from random points" if k == 1 else None
            axes.plot(
                values,
                color="#c1440e" if k == 0 else "#2a6f97",
                linewidth=1.2,
                marker=".",
                markersize=3,
                label=start,
            )
        axes.axhline(at_x, color="#444444", linewidth=0.8, linestyle="--", label="$s_1$ at x")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(yscale="log", xlabel="step", ylabel="$s_1(J(z))$, embedding / pixel")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        figures[f"Largest singular value over the {title}"] = figure
    return figures
