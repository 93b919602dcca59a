"""Figures as PNG files, and plain plots of stored arrays where no plugin draws them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivengine.contracts.result import Array
from equivengine.contracts.wording import in_unit, printable

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

#: Dots per inch: a figure of 6.4 inches has 832 pixels, which stay sharp on dense screens and in print.
DPI = 130
#: A plain plot is made of arrays with at least 2 and at most this many values; others are tables' or users' business.
MOST_VALUES = 1 << 20
#: Plain plots of one unit, at most.
MOST_PLOTS = 12
#: What captions say of figures of weights that were drawn: a figure is copied without the page around it.
OF_RANDOM_WEIGHTS = "Random weights: this says nothing about a trained model."
#: From this many values on, a curve is drawn without markers.
DENSE = 64


@dataclass(frozen=True)
class Drawn:
    """A figure that can be shown.

    Attributes:
        title: What it is called.
        png: The file.
        width: Pixels.
        height: Pixels.
        caption: What is drawn, in a sentence or two; empty where the figure does not say.
    """

    title: str
    png: bytes
    width: int
    height: int
    caption: str = ""


def drawn(title: str, figure: Figure, *, random: bool = False) -> Drawn:
    """Draw a figure on white. It need not be closed: figures of reports know no pyplot.

    Args:
        title: What it is called.
        figure: Its label (`Figure.set_label`) is its caption.
        random: Whether it shows a model of random weights, which the caption then says.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    try:
        png = _png(figure)
    except ValueError:  # a name of a class or a file that looks like a formula and is none
        if not _as_they_stand(figure):
            raise
        png = _png(figure)
    width, height = canvas.get_width_height()
    caption = " ".join(filter(None, (str(figure.get_label()), OF_RANDOM_WEIGHTS if random else "")))
    return Drawn(title, png, width, height, caption)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _as_they_stand(figure: Figure) -> int:
    """Show texts that are no formulas as they stand. Returns how many there were."""
    from matplotlib.mathtext import MathTextParser
    from matplotlib.text import Text

    parser, count = MathTextParser("agg"), 0
    for text in figure.findobj(Text):
        try:
            if text.get_parse_math() and "$" in text.get_text():
                parser.parse(text.get_text())
        except ValueError:
            text.set_parse_math(False)
            count += 1
    return count


def relabelled(figure: Figure, unit: str) -> Figure:
    """The figure, with ``unit`` for "pixel" in its labels: probes draw in the words of images."""
    if unit != "pixel":
        from matplotlib.text import Text

        for text in figure.findobj(Text):
            text.set_text(in_unit(text.get_text(), unit))
        figure.set_label(in_unit(str(figure.get_label()), unit))
    return figure


def plain(arrays: Mapping[str, Array]) -> Iterator[tuple[str, Figure]]:
    """Plots of what a unit stores: curves of one-dimensional arrays, images of two-dimensional ones.

    Args:
        arrays: By name; what is no number, or too large, is passed over. The first `MOST_PLOTS` are drawn.
    """
    made = 0
    for name, array in arrays.items():
        if made == MOST_PLOTS:
            return
        if array.data.dtype.kind in "fiub" and array.data.ndim in (1, 2) and 2 <= array.data.size <= MOST_VALUES:
            made += 1
            yield f"{name}: {array.description}", _plain(name, array)


def _plain(name: str, array: Array) -> Figure:
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    values = np.asarray(array.data, dtype=np.float64)
    label = mathless(name if array.unit in ("", "1") else f"{name}, {array.unit}")
    if values.ndim == 1:
        axes.plot(values, color="#2a6f97", linewidth=1.2, marker="." if len(values) <= DENSE else None)
        axes.set(xlabel=mathless(f"{array.dims[0]}, n = {len(values):,}"), ylabel=label, yscale=_scale(values))
        axes.spines[["top", "right"]].set_visible(False)
    else:
        shown = axes.imshow(values, aspect="auto", interpolation="nearest", cmap="cividis")
        figure.colorbar(shown, label=label)
        axes.set(xlabel=mathless(array.dims[1]), ylabel=mathless(array.dims[0]))
    return figure


def _scale(values: np.ndarray) -> str:
    """Logarithmic where positive values span two decades or more."""
    return "log" if values.min() > 0 and values.max() >= 100 * values.min() else "linear"


def mathless(text: str) -> str:
    """Names are texts, not formulas: matplotlib would parse what stands between dollar signs."""
    return printable(text).replace("$", r"\$")
