"""Figures become PNG files of a known size, whatever the names in them; arrays are plotted plainly."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from equivengine.contracts.result import Array, Picture
from equivengine.report.drawing import DPI, MOST_PLOTS, OF_RANDOM_WEIGHTS, drawn, plain, relabelled
from equivengine.report.images import of_figure, of_picture


def figure_of(name):
    figure = Figure(figsize=(3, 2), layout="constrained")
    axes = figure.subplots()
    axes.set_xticks([0, 1], [name, "b"])
    axes.set_title(name)
    return figure


def test_a_figure_has_its_size_in_pixels():
    found = drawn("a", figure_of("a"))
    assert (found.width, found.height) == (3 * DPI, 2 * DPI)
    with Image.open(io.BytesIO(found.png)) as image:
        assert image.size == (found.width, found.height)


def test_the_label_of_a_figure_is_its_caption():
    figure = figure_of("a")
    assert drawn("a", figure).caption == ""
    figure.set_label("Each point is a pixel.")
    assert of_figure(drawn("a", figure), "probe").description == "probe: a. Each point is a pixel."
    assert drawn("a", relabelled(figure, "coordinate")).caption == "Each point is a coordinate."


def test_a_caption_says_that_weights_are_random():
    figure = figure_of("a")
    assert drawn("a", figure, random=True).caption == OF_RANDOM_WEIGHTS
    figure.set_label("Each point is a pixel.")
    assert drawn("a", figure, random=True).caption == f"Each point is a pixel. {OF_RANDOM_WEIGHTS}"


def test_a_picture_is_captioned_where_its_name_does_not_say_it_all():
    levels = np.zeros((2, 2, 3), np.uint8)
    assert of_picture("original", Picture(levels, "the original")).caption == ""
    assert of_picture("difference", Picture(levels, "|matched - original| x 50")).caption == "|matched - original| x 50"


@pytest.mark.parametrize("name", ["$x_{$", "$$", "cost: 5$ to $6", r"\$", r"$\nonsense$", "{", "%"])
def test_a_name_that_looks_like_a_formula_and_is_none_stands_as_it_is(name):
    assert drawn("a", figure_of(name)).png


def test_what_cannot_be_drawn_for_another_reason_still_raises():
    figure = figure_of("a")
    figure.axes[0].set_yscale("log")
    figure.axes[0].yaxis.set_major_formatter(lambda value, place: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        drawn("a", figure)


def test_plain_plots_show_curves_and_images_and_pass_over_the_rest():
    arrays = {
        "curve": Array(np.geomspace(1, 1e4, 10), ("k",), "embedding", "a curve, $5"),
        "matrix": Array(np.eye(4), ("row", "column"), "1", "a matrix"),
        "words": Array(np.array(["a", "b"]), ("word",), "1", "words"),
        "scalar": Array(np.array(1.0), (), "1", "one number"),
        "cube": Array(np.zeros((2, 2, 2)), ("a", "b", "c"), "1", "too many axes"),
        "one": Array(np.zeros(1), ("one",), "1", "one value"),
    }
    found = dict(plain(arrays))
    assert list(found) == ["curve: a curve, $5", "matrix: a matrix"]
    assert found["curve: a curve, $5"].axes[0].get_yscale() == "log"
    assert all(drawn(title, figure).png for title, figure in found.items())
    many = {f"a{k}": Array(np.arange(3), ("k",), "1", "numbers") for k in range(MOST_PLOTS + 5)}
    assert len(dict(plain(many))) == MOST_PLOTS
