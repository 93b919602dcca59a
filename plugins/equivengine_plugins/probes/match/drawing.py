"""Figures of the match probe, from stored arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAIN, SECOND, BAND = "#c1440e", "#2a6f97", "#7f7f7f"
GAIN = 50


def draw(arrays: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures by title; ``Figure`` objects of no window and no pyplot state, so that nothing has to be closed.

    Args:
        arrays: Arrays of a result or of a stored unit, by name.
    """
    from matplotlib.figure import Figure

    figures = {}
    if _data(arrays, "original").ndim == 3 and _data(arrays, "original").shape[0] in (1, 3):
        row = Figure(figsize=(8.0, 2.7), layout="constrained")
        _images(row, arrays)
        row.set_label(f"In the last panel, white is a change of 1/{GAIN} of the range of pixels or more.")
        figures["Original, target and matched"] = row
    if "trace_distance" in arrays:
        course = Figure(figsize=(8.0, 3.0), layout="constrained")
        _course(course, arrays)
        course.set_label("Step 0 is the start.")
        figures["Course of the matching"] = course
        cost = Figure(figsize=(6.4, 4.0), layout="constrained")
        _cost(cost.subplots(), arrays)
        cost.set_label("An equivalent is a forward pass, or a product with J or its transpose.")
        figures["Distance against cost"] = cost
    return figures


def _data(arrays: Mapping[str, Any], name: str) -> np.ndarray:
    import numpy as np

    return np.asarray(arrays[name].data)


def _images(figure: Figure, arrays: Mapping[str, Any]) -> None:
    """Images side by side, with what the encoder takes them for."""
    import numpy as np

    low, high = _data(arrays, "input_range")
    shown = {
        name: (_data(arrays, name) - low) / (high - low) for name in ("original", "target", "matched") if name in arrays
    }
    titles = {name: name + _class_of(arrays, "start" if name == "original" else name) for name in shown}
    shown["difference"] = GAIN * np.abs(shown["matched"] - shown["original"])
    titles["difference"] = f"|matched - original| x {GAIN}"
    for axes, (name, image) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        show(axes, image)
        axes.set_title(titles[name], fontsize=9)
        axes.set(xlabel="column, pixel", ylabel="row, pixel" if name == "original" else "")
        axes.tick_params(labelsize=7)


def show(axes: Axes, image: np.ndarray) -> None:
    """An image [1 or 3, H, W]; black is 0, white 1 and more."""
    import numpy as np

    clipped = np.clip(image, 0, 1)
    if len(clipped) == 1:
        axes.imshow(clipped[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(clipped.transpose(1, 2, 0), interpolation="nearest")


def _class_of(arrays: Mapping[str, Any], name: str) -> str:
    if "predicted" not in arrays:
        return ""
    whose = _data(arrays, "predicted_of").tolist()
    return f"\nclass {_data(arrays, 'predicted_names')[whose.index(name)]}" if name in whose else ""


def _course(figure: Figure, arrays: Mapping[str, Any]) -> None:
    """Loss, cosine and mean difference after each step, as in Fig. 5 of the paper."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    distance = _data(arrays, "trace_distance")
    step = np.arange(len(distance))
    panels = (
        (0.5 * distance**2, "loss $|f(x) - f(x_t)|^2 / 2$, embedding$^2$", "log"),
        (_data(arrays, "trace_cosine"), "cosine of $f(x)$ and $f(x_t)$", "linear"),
        (_data(arrays, "trace_mean"), "mean $|x - x_0|$, pixel", "linear"),
    )
    for axes, (values, label, scale) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.plot(step, values, color=MAIN, linewidth=1.3, marker="." if len(step) <= 60 else None, markersize=4)
        axes.set(xlabel=f"step, n = {len(step) - 1}", ylabel=label, yscale=scale if (values > 0).any() else "linear")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.spines[["top", "right"]].set_visible(False)


def _cost(axes: Axes, arrays: Mapping[str, Any]) -> None:
    """Relative distance over forward equivalents, beside what pairs of reference images have."""
    quantiles, pairs = _data(arrays, "reference_quantiles"), int(_data(arrays, "reference_pairs")[0])
    median = quantiles[50]
    spent, distance = _data(arrays, "trace_equivalents"), _data(arrays, "trace_distance") / median
    low, high = quantiles[5] / median, quantiles[95] / median
    axes.axhspan(low, high, color=BAND, alpha=0.25, linewidth=0, label=f"5 to 95% of reference pairs, n = {pairs:,}")
    axes.axhline(1, color=BAND, linewidth=0.8, linestyle="--", label="their median, the yardstick")
    axes.plot(spent, distance, color=MAIN, linewidth=1.3, marker="." if len(spent) <= 60 else None, label="this pair")
    if "embedding_png" in arrays:
        png = float(((_data(arrays, "embedding_png") - _data(arrays, "embedding_target")) ** 2).sum() ** 0.5) / median
        axes.axhline(png, color=SECOND, linewidth=1.0, linestyle=":", label="matched, from its 8-bit PNG")
    axes.set(
        yscale="log",
        xlabel="forward-pass equivalents",
        ylabel="$|f(x) - f(x_t)|$ over the yardstick",
    )
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
