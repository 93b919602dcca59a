"""The projection probe: components against numpy's, spectra that are known, matched pairs on their targets."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from colours import Eye, encoder_of, gaussian, task_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import equivengine as eqv
from equivengine_plugins.probes.projection import Projection, ProjectionParams
from equivengine_plugins.probes.projection.components import principal_components


def params(**given):
    return ProjectionParams(**{"pairs": 4, "references": 24, **given})


def cloud(count, deviations, seed=0):
    """Gaussian points with the given standard deviations along a rotated basis, around a mean far from zero."""
    n = len(deviations)
    turn = torch.linalg.qr(gaussian(n, n, seed=seed + 1).double()).Q
    return gaussian(count, n, seed=seed).double() * torch.tensor(deviations).double() @ turn.T + 7, turn


@pytest.fixture(scope="module")
def result():
    return Projection().run(task_of(params(), encoder_of()))


# -- components -------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 30), st.integers(1, 12), st.integers(0, 1000))
def test_components_are_the_eigenvectors_of_the_covariance(count, n, seed):
    z, _ = cloud(count, np.linspace(1, 3, n), seed)
    found = principal_components(z, seed=0, resamples=50)
    covariance = np.atleast_2d(np.cov(z.numpy().T))
    values = np.sort(np.linalg.eigvalsh(covariance))[::-1]
    rank = len(found.variance)
    assert rank == min(count - 1, n)
    assert np.allclose(found.variance, values[:rank])
    v = found.vectors.numpy()
    assert np.allclose(covariance @ v.T, v.T * found.variance, atol=1e-9)
    assert (v[np.arange(rank), np.abs(v).argmax(1)] > 0).all()
    assert found.ratio.sum() == pytest.approx(1)
    assert (found.ratio_interval[:, 0] <= found.ratio_interval[:, 1]).all()


def test_the_sign_does_not_depend_on_order_or_reflection():
    z, _ = cloud(20, [4, 2, 1])
    found = principal_components(z, seed=0, resamples=50)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    again = principal_components(z[order], seed=0, resamples=50)
    assert torch.allclose(found.vectors, again.vectors)
    mirrored = principal_components(-z, seed=0, resamples=50)
    assert torch.allclose(found.vectors, mirrored.vectors)


def test_dimensions_count_equal_components_as_what_they_are():
    z = torch.cat([torch.eye(6), -torch.eye(6)]).double()[:, :6]
    found = principal_components(z, seed=0, resamples=50)
    assert found.participation == pytest.approx(6)
    assert found.effective == pytest.approx(6)
    assert found.degenerate.all()
    line = principal_components(torch.arange(9).double()[:, None] * torch.ones(4).double(), seed=0, resamples=50)
    assert len(line.variance) == 1
    assert line.participation == pytest.approx(1)
    assert not line.degenerate.any()


def test_well_separated_components_are_found_and_equal_ones_are_flagged():
    z, turn = cloud(300, [8, 3, 3, 1, 0.3])
    found = principal_components(z, seed=0, resamples=300)
    assert abs(float(found.vectors[0] @ turn[:, 0])) > 0.99
    assert list(found.degenerate) == [False, True, True, False, False]


def test_equal_variances_are_flagged_as_often_as_is_said():
    hits = [
        principal_components(cloud(150, [2, 2], seed=5 * s)[0], seed=s, resamples=200).degenerate for s in range(200)
    ]
    # Binomial(200, 0.95) lies within these but for one time in a thousand.
    assert 0.895 <= np.mean(hits) <= 0.99


def test_intervals_cover_the_share_of_the_population_about_as_often_as_they_say():
    deviations = np.array([4.0, 2.0, 1.0])
    truth = deviations**2 / (deviations**2).sum()
    hits = np.zeros(3)
    for trial in range(150):
        z, _ = cloud(80, deviations, seed=10 * trial)
        ends = principal_components(z, seed=trial, resamples=200).ratio_interval
        hits += (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    # Percentile intervals of 80 points cover a little less than 95%.
    assert (hits / 150 >= 0.86).all()
    assert (hits / 150 <= 0.995).all()


# -- the whole measurement --------------------------------------------------------------------------------------------


def test_matched_inputs_land_on_their_targets(result):
    assert result.status == "ok", result.message
    assert not {name: check for name, check in result.checks.items() if not check.passed}
    assert result.summary["converged"].value == 1
    assert result.summary["relative_after_max"].value <= 1e-3
    assert result.summary["relative_before"].value > 0.9
    arrays = {name: array.data for name, array in result.arrays.items()}
    points, target = arrays["coordinates"], arrays["pair_target"].astype(int)
    scale = result.summary["yardstick"].value
    assert np.abs(arrays["pair_matched"] - points[target]).max() <= 1e-3 * scale
    assert (np.linalg.norm(points[arrays["pair_original"].astype(int)] - points[target], axis=1) > 0.5 * scale).all()
    labels = arrays["label"]
    assert (labels[arrays["pair_original"].astype(int)] != labels[target]).all()


def test_coordinates_are_those_of_the_stored_components(result):
    encoder, task = encoder_of(), task_of(params())
    arrays = {name: array.data for name, array in result.arrays.items()}
    with torch.no_grad():
        f = encoder(torch.stack(list(task.samples))).double().numpy()
        r = encoder(task.references).double().numpy()
    assert np.allclose(arrays["mean"], r.mean(0), atol=1e-6)
    assert np.allclose(arrays["coordinates"], (f - arrays["mean"]) @ arrays["components"].T, atol=1e-6)
    assert np.allclose(arrays["reference_coordinates"], (r - arrays["mean"]) @ arrays["components"].T, atol=1e-6)
    # Three classes at three corners: two dimensions hold nearly everything, and classes lie apart in them.
    assert arrays["explained"][:2].sum() > 0.95
    assert 1.5 < result.summary["participation"].value < 2.5
    for name in set(arrays["label"]):
        mine = arrays["coordinates"][arrays["label"] == name][:, :2]
        others = arrays["reference_coordinates"][arrays["reference_label"] != name][:, :2]
        assert np.linalg.norm(mine[:, None] - others, axis=-1).min() > np.linalg.norm(mine - mine.mean(0), axis=1).max()


def test_the_set_itself_may_be_the_basis():
    task = task_of(params(basis="images", pairs=0), count=9, references=0)
    assert Projection.references_of(task.params) == 0
    found = Projection().run(task)
    assert found.provenance["images_of_basis"] == 9
    assert "reference_coordinates" not in found.arrays
    assert "pair_matched" not in found.arrays
    assert np.allclose(found.arrays["coordinates"].data.mean(0), 0, atol=1e-6)
    assert found.summary["explained_1"].n == 9
    assert Projection.references_of(params(basis="images")) == 24


def test_a_few_images_have_few_components_and_say_so():
    found = Projection().run(task_of(params(basis="images", components=5), count=3))
    assert found.arrays["coordinates"].data.shape == (3, 2)
    assert "3 images have 2 components, 5 were asked for" in found.message


def test_pairs_that_do_not_converge_are_said():
    bent = encoder_of(Eye(lambda y: torch.sin(6 * y)))
    found = Projection().run(task_of(params(max_jacobians=1, tolerance=1e-6), bent))
    assert found.status == "not_converged"
    assert "4 of 4 pairs did not come" in found.message
    assert found.summary["relative_after"].value > 1e-6


def test_the_seed_decides_everything():
    a, b = (Projection().run(task_of(params())) for _ in range(2))
    for name in a.arrays:
        assert np.array_equal(a.arrays[name].data, b.arrays[name].data), name


def test_on_digits_matched_inputs_land_on_their_targets(digits):
    pictures = eqv.load_images("digits")
    chosen, others = [pictures[k] for k in (0, 2, 5)], [pictures[k] for k in range(40, 120)]
    task = task_of(params(pairs=2, resamples=100), digits, count=3)
    task = dataclasses.replace(
        task,
        samples=[digits.preprocess(s.load()) for s in chosen],
        labels=[s.label for s in chosen],
        references=torch.stack([digits.preprocess(s.load()) for s in others]),
        reference_labels=[s.label for s in others],
        reference_digests=[s.digest for s in others],
    )
    found = Projection().run(task)
    assert not {name: check for name, check in found.checks.items() if not check.passed}
    assert found.summary["rank_90"].value <= 9  # ten classes lie at the corners of a simplex
    reached = found.arrays["converged"].data
    assert reached.any()
    assert (found.arrays["relative_after"].data[reached] <= 1e-3 * (1 + 1e-4)).all()
    assert (found.arrays["relative_before"].data > 0.8).all()


# -- what can go wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "task", "message", "hint"),
    [
        ({}, {"count": 1}, "no two different images", "--limit"),
        ({"basis": "images", "pairs": 0}, {"count": 2}, "need more images", "--limit"),
        ({"pairs": 0}, {"references": 2}, "need more images", "--targets"),
        ({"pairs": 0}, {"references": 0}, "need more images", "--targets"),
        ({"other_class": True}, {"labelled": False}, "different labels", "other_class=false"),
    ],
)
def test_too_few_images_are_one_error_with_advice(given_, task, message, hint):
    with pytest.raises(eqv.UsageError, match=message) as caught:
        Projection().run(task_of(params(**given_), **task))
    assert hint in caught.value.hint


def test_one_image_can_be_shown_among_references():
    found = Projection().run(task_of(params(pairs=0), count=1))
    assert found.arrays["coordinates"].data.shape == (1, 3)


def test_equal_embeddings_have_no_components():
    with pytest.raises(eqv.NumericsError, match="all embeddings are equal"):
        principal_components(torch.full((5, 3), 0.1).double(), seed=0, resamples=50)


@pytest.mark.parametrize(
    "bad",
    [
        {"basis": "both"},
        {"components": 0},
        {"components": 65},
        {"references": 2},
        {"resamples": 1},
        {"pairs": -1},
        {"pairs": 10_001},
        {"tolerance": 0},
        {"solver": "gd"},
        {"max_jacobians": 0},
        {"unknown": 1},
    ],
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValidationError):
        ProjectionParams(**bad)


def test_figures_are_drawn_from_arrays_and_leave_nothing_open(result):
    from matplotlib import pyplot as plt
    from matplotlib.text import Annotation

    figures = Projection().figures(result.arrays)
    assert list(figures) == ["First two principal components", "Explained variance"]
    for figure in figures.values():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        assert buffer.getbuffer()[:8] == b"\x89PNG\r\n\x1a\n"
        assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)
    texts = figures["First two principal components"].axes[0].texts
    arrows = [text for text in texts if isinstance(text, Annotation)]
    known = {*result.arrays["label"].data.tolist(), *result.arrays["reference_label"].data.tolist()} - {""}
    assert sorted(text.get_text() for text in texts if text not in arrows) == sorted(known)
    ends = sorted(tuple(arrow.xy) for arrow in arrows)
    assert np.allclose(ends, sorted(map(tuple, result.arrays["pair_matched"].data[:, :2])))
    without = {name: a for name, a in result.arrays.items() if not name.startswith(("pair_", "reference_"))}
    assert len(Projection().figures(without)) == 2
    one = dict(result.arrays, coordinates=eqv.Array(np.zeros((6, 1)), ("image", "component"), "embedding", "one"))
    assert list(Projection().figures(one)) == ["Explained variance"]
    assert plt.get_fignums() == []
