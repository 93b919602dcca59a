"""Figures over many units: which are drawn, what they show, and that no more is read than is drawn."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine.contracts.unit import SampleRef, canonical_json
from equivengine_plugins.probes.groups import COLOURS, MOST_SETTINGS, MOST_UNITS, bundle, groups, left_out
from equivengine_plugins.probes.ldlc import Ldlc
from equivengine_plugins.probes.lipschitz import Lipschitz
from equivengine_plugins.probes.match import Match
from equivengine_plugins.probes.match.overview import MOST_ROWS
from equivengine_plugins.probes.nullwalk import NullWalk
from equivengine_plugins.probes.path import Path
from equivengine_plugins.probes.spectrum import Spectrum

SHAPE = (1, 4, 6)
SETTINGS = {
    Ldlc: {"directions": 9, "null_directions": 8, "gradient_steps": 7, "singular_directions": 4},
    Lipschitz: {"steps": 3},
    Match: {"tolerance": 1e-3},
    NullWalk: {"steps": 3},
    Path: {"points": 9, "steps": 3, "rank": 3, "spaces": 3},
    Spectrum: {},
}


class Curved(nn.Module):
    """f(x) = tanh(P x), with P [4, 24] drawn once."""

    def __init__(self):
        super().__init__()
        self.P = nn.Parameter(torch.randn(4, 24, generator=torch.Generator().manual_seed(0)) / 3)

    def forward(self, x):
        return torch.tanh(x.flatten(1) @ self.P.T)


ENCODER = eqv.Encoder(eqv.LoadedModel(Curved(), preprocessing=lambda raw: raw, input_shape=SHAPE), "map")


def images(count, first=0):
    return [torch.rand(SHAPE, generator=torch.Generator().manual_seed(first + k)) for k in range(count)]


def measured(cls, count=3, **settings):
    """Units of a probe with their arrays."""
    params = cls.Params(**(SETTINGS[cls] | settings))
    arity = cls.arity_of(params)
    found = []
    for number in range(count):
        refs = tuple(SampleRef("x", number + 100 * end, f"{number}-{end}", f"{number}{end}") for end in range(2))
        refs = refs[: 2 if arity == "pair" else 1]
        task = ProbeTask(
            ENCODER,
            images(len(refs), 2 * number),
            params,
            seed=0,
            sample_digests=[ref.digest for ref in refs],
            references=torch.stack(images(6, 50)) if cls.references_of(params) else None,
            reference_labels=[None] * 6,
            reference_digests=[f"r{k}" for k in range(6)],
        )
        unit = eqv.Unit(cls.name, "1", canonical_json(params.model_dump(mode="json")), "map", "w", refs, 0, "fp32")
        found.append((unit, cls().run(task).arrays))
    return found


def drawn(figures):
    """Draws each figure: what cannot be drawn fails only then."""
    for figure in figures.values():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=40)
        assert buffer.getbuffer().nbytes > 1000
    return figures


def words(figure):
    """All texts of a figure."""
    import matplotlib.text

    return " ".join(found.get_text() for found in figure.findobj(matplotlib.text.Text))


# -- which units ------------------------------------------------------------------------------------------------------


def unit(number=0, **params):
    refs = (SampleRef("x", number, str(number), str(number)),)
    return eqv.Unit("match", "1", json.dumps(params), "map", "w", refs, 0, "fp32")


def test_units_are_grouped_by_what_sets_them_apart():
    results = [(unit(k, rate=rate), {}) for rate in (0.1, 0.001, 0.01) for k in range(3)]
    found = groups(results)
    assert [group.label("pair") for group in found] == [f"rate={rate}, n = 3 pairs" for rate in (0.1, 0.001, 0.01)]
    assert [[each for each, _ in group.units] for group in found] == [
        [each for each, _ in results[k : k + 3]] for k in (0, 3, 6)
    ]
    lightness = [sum(group.colour[:3]) for group in found]
    assert lightness[1] < lightness[2] < lightness[0]  # in the order of the rates
    assert groups([(unit(), {})])[0].label("pair") == "n = 1 pair"
    assert groups([]) == []


def test_settings_in_no_order_have_colours_that_can_be_told_apart():
    found = groups([(unit(solver=solver), {}) for solver in ("lm", "gd", "minimal-l2")])
    assert [group.colour for group in found] == list(COLOURS[:3])


def test_what_is_not_drawn_is_said():
    many = [(unit(k, rate=1), {}) for k in range(MOST_UNITS + 7)]
    (group,) = groups(many)
    assert len(group.units) == MOST_UNITS
    assert group.label("pair") == f"first {MOST_UNITS} of {MOST_UNITS + 7} pairs"
    assert left_out(many) == ""
    settings = [(unit(rate=k), {}) for k in range(MOST_SETTINGS + 2)]
    assert len(groups(settings)) == MOST_SETTINGS
    assert left_out(settings) == f"first {MOST_SETTINGS} of {MOST_SETTINGS + 2} settings"


def test_a_course_that_has_stopped_keeps_its_last_value():
    from matplotlib.figure import Figure

    x = np.arange(5.0)
    courses = [(x, x), (x[:3], 10 * x[:3]), (x, 100 * x)]
    for hold, end in ((True, 4), (False, 2)):
        axes = Figure().subplots()
        bundle(axes, courses, "black", "n = 3", hold=hold)
        middle = axes.get_lines()[-1]
        assert middle.get_label() == "n = 3, median"
        assert middle.get_xdata().tolist() == list(range(end + 1))
        assert middle.get_ydata().tolist() == [0, 10, 20, 20, 20][: end + 1]


# -- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "settings", "titles", "of_two"),
    [
        (Ldlc, {}, ["Constants over images"], 2),
        (Spectrum, {}, ["Spectra of all images"], 1),  # side by side
        (Spectrum, {"compare": True}, ["Spectra of all images"], 3),  # the same, and pairs of each
        (Path, {}, ["Straight lines of all pairs", "Paths within classes of all pairs"], 4),
        (NullWalk, {}, ["Distance and drift of all walks"], 2),
        (Lipschitz, {}, ["Largest singular value over balls, all images"], 1),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_all_units_on_common_axes(cls, settings, titles, of_two):
    results = measured(cls, **settings)
    figures = drawn(cls().overview(results))
    assert list(figures) == titles
    for figure in figures.values():
        assert "n = 3" in words(figure)
        assert figure.get_label().startswith(("Thin: each", "A mark for each pair", "Left:", "Differences are"))
        assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)
    assert cls().overview(results[:1]) == {}  # what `figures` shows
    assert cls().overview([]) == {}
    other = [(replace(each, params='{"other": 1}'), arrays) for each, arrays in results]
    assert len(cls().overview([*results, *other])) == of_two


def test_courses_of_learning_rates_share_axes():
    results = [found for rate in (0.1, 0.3) for found in measured(Match, solver="gd", rate=rate, steps=40)]
    figures = drawn(Match().overview(results))
    assert list(figures) == [
        "Course of the matching, all pairs",
        "Distance to the target, before and after",
        "Originals, targets and matched inputs",
    ]
    courses = figures["Course of the matching, all pairs"]
    assert "rate=0.1, n = 3 pairs, median" in words(courses)
    assert "rate=0.3, n = 3 pairs, median" in words(courses)
    loss, cosine, mean = courses.axes
    assert all(len(axes.get_lines()) == 2 * (3 + 1) for axes in courses.axes)
    for axes, values_of in (
        (loss, lambda arrays: 0.5 * arrays["trace_distance"].data ** 2),
        (cosine, lambda arrays: arrays["trace_cosine"].data),
        (mean, lambda arrays: arrays["trace_mean"].data),
    ):
        assert np.allclose(axes.get_lines()[0].get_ydata(), values_of(results[0][1]))
    assert loss.get_yscale() == "log"


def test_distances_are_those_of_the_embeddings_over_the_yardstick():
    results = measured(Match, count=2)
    axes = Match().overview(results)["Distance to the target, before and after"].axes[0]
    dots = axes.get_lines()[0].get_xdata()
    for dot, (_, arrays) in zip(dots, results, strict=True):
        gap = arrays["embedding_original"].data - arrays["embedding_target"].data
        assert dot == pytest.approx(np.linalg.norm(gap) / arrays["reference_quantiles"].data[50], rel=1e-5)


def test_a_single_pair_is_shown_with_its_course_and_images():
    figures = drawn(Match().overview(measured(Match, count=1)))
    assert list(figures) == ["Course of the matching, all pairs", "Originals, targets and matched inputs"]
    assert Match().overview([]) == {}


def test_images_show_what_changed():
    results = measured(Match, count=2)
    figure = Match().overview(results)["Originals, targets and matched inputs"]
    assert len(figure.axes) == 2 * 5
    shown = [axes.get_images()[0].get_array() for axes in figure.axes[:5]]
    arrays = results[0][1]
    for image, name in zip(shown, ("original", "target", "matched"), strict=False):
        assert np.allclose(image, arrays[name].data[0])
    change = np.abs(arrays["matched"].data[0] - arrays["original"].data[0])
    assert np.allclose(shown[3], np.clip(50 * change, 0, 1), atol=1e-5)
    assert np.allclose(shown[4], change / change.max(), atol=1e-6)
    assert "2 of 2 pairs" in words(figure)


class Counted(Mapping):
    """Arrays that count how often one is read."""

    def __init__(self, arrays):
        self.arrays, self.reads = arrays, 0

    def __getitem__(self, name):
        self.reads += 1
        return self.arrays[name]

    def __iter__(self):
        return iter(self.arrays)

    def __len__(self):
        return len(self.arrays)

    def __contains__(self, name):
        return name in self.arrays


@pytest.mark.parametrize("cls", [Ldlc, Match, NullWalk, Path, Spectrum], ids=lambda cls: cls.name)
def test_no_more_is_read_than_is_drawn(cls):
    ((first, arrays),) = measured(cls, count=1)
    results = [(replace(first, seed=k), Counted(arrays)) for k in range(MOST_UNITS + 20)]
    figures = cls().overview(results)
    assert figures
    assert all(counted.reads == 0 for _, counted in results[MOST_UNITS:])
    assert any(f"first {MOST_UNITS} of {MOST_UNITS + 20}" in words(figure) for figure in figures.values())
    if cls is Match:
        rows = len(figures["Originals, targets and matched inputs"].axes) // 5
        assert rows == MOST_ROWS
