"""The yardstick: which pairs it takes, its numbers against plain ones, and what it refuses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine_plugins.probes.yardstick import measure


def encoder_of(module, shape=(6,), **loaded):
    return eqv.Encoder(eqv.LoadedModel(module, preprocessing=lambda raw: raw, input_shape=shape, **loaded), "map")


def linear(n=4, m=6, seed=0):
    module = nn.Linear(m, n)
    with torch.no_grad():
        module.weight.copy_(torch.randn(n, m, generator=torch.Generator().manual_seed(seed)))
        module.bias.fill_(3.0)
    return encoder_of(module)


def points(count, seed=1):
    return torch.rand(count, 6, generator=torch.Generator().manual_seed(seed))


def task_of(encoder, references, labels=(), digests=(), precision="fp32"):
    return ProbeTask(
        encoder,
        [references[0] if len(references) else torch.zeros(6)],
        eqv.Params(),
        seed=0,
        precision=precision,
        references=references,
        reference_labels=labels,
        reference_digests=digests,
    )


def by_hand(encoder, references, chosen):
    double = encoder.at_precision("fp64")
    f = double(references.double())
    pairs = [(i, j) for i, j in itertools.combinations(range(len(references)), 2) if chosen(i, j)]
    apart = np.array([float((f[i] - f[j]).norm()) for i, j in pairs])
    pixels = np.array([float((references[i].double() - references[j].double()).norm()) for i, j in pairs])
    return apart, pixels


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_it_is_the_median_over_all_pairs_of_different_classes(precision):
    encoder, references = linear(), points(9)
    labels = ["a", "b", "c"] * 3
    found = measure(task_of(encoder, references, labels, precision=precision))
    apart, pixels = by_hand(encoder, references, lambda i, j: labels[i] != labels[j])
    rel = 1e-5 if precision == "fp32" else 1e-12
    assert found.different_classes
    assert (found.pairs, found.images) == (27, 9)
    assert found.median == pytest.approx(np.median(apart), rel=rel)
    assert found.quantiles == pytest.approx(tuple(np.quantile(apart, [0.05, 0.95])), rel=rel)
    assert found.pixel_l2 == pytest.approx(np.median(pixels), rel=1e-12)
    assert np.allclose(found.distances, np.sort(apart), rtol=rel)
    assert "of different classes" in found.name


def test_images_without_a_known_class_make_no_pair_of_classes():
    encoder, references = linear(), points(6)
    labels = ["a", None, "b", None, "a", "b"]
    found = measure(task_of(encoder, references, labels))
    known = {0, 2, 4, 5}
    apart, _ = by_hand(encoder, references, lambda i, j: {i, j} <= known and labels[i] != labels[j])
    assert found.pairs == 4
    assert found.median == pytest.approx(np.median(apart), rel=1e-5)


@pytest.mark.parametrize("labels", [(), [None] * 7, ["a"] * 7])
def test_without_two_classes_all_pairs_of_different_content_are_taken(labels):
    encoder, references = linear(), points(7)
    references[3] = references[5]
    digests = [str(i) if i != 3 else "5" for i in range(7)]
    found = measure(task_of(encoder, references, labels, digests))
    apart, _ = by_hand(encoder, references, lambda i, j: (i, j) != (3, 5))
    assert not found.different_classes
    assert found.pairs == 20
    assert found.median == pytest.approx(np.median(apart), rel=1e-5)


def test_the_interval_covers_medians_of_other_draws_of_as_many_images():
    encoder = linear()
    truth = measure(task_of(encoder, points(400, seed=99))).median
    intervals = [measure(task_of(encoder, points(30, seed=s))).interval for s in range(60)]
    covered = sum(low <= truth <= high for low, high in intervals)
    assert covered >= 50  # 57 of 60 are expected; binomial, fewer than 50 has probability 1e-3
    assert all(high - low < truth for low, high in intervals)


def test_the_result_holds_it_and_a_hundred_percentiles():
    found = measure(task_of(linear(), points(9)))
    summary = found.summary()
    assert summary["yardstick"].value == found.median
    assert summary["yardstick"].interval[0] <= found.median <= summary["yardstick"].interval[1]
    stored = found.quantile_array().data
    assert stored[50] == pytest.approx(found.median)
    assert (stored[0], stored[-1]) == (found.distances[0], found.distances[-1])


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_references_are_one_error_with_advice(count):
    with pytest.raises(eqv.UsageError, match="no two reference images") as caught:
        measure(task_of(linear(), points(count)))
    assert "--targets" in caught.value.hint


def test_copies_of_one_image_are_one_error():
    with pytest.raises(eqv.UsageError, match="all of one content"):
        measure(task_of(linear(), points(1).expand(5, -1), digests=["same"] * 5))


def test_an_encoder_that_answers_all_references_alike_is_refused():
    module = nn.Sequential(nn.Linear(6, 3), nn.ReLU())
    with torch.no_grad():
        module[0].weight.fill_(1.0)
        module[0].bias.fill_(-2.0)
    with pytest.raises(eqv.NumericsError, match="equal embeddings"):
        measure(task_of(encoder_of(module), points(5) / 10))


def test_an_embedding_that_is_not_finite_is_refused():
    class Divide(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(6))

        def forward(self, x):
            return self.w * x / (x.amax(1, keepdim=True) > 0)

    references = points(5)
    references[2] = 0
    with pytest.raises(eqv.NumericsError, match="holds NaN") as caught:
        measure(task_of(encoder_of(Divide()), references))
    assert "reference 2 of 5" in str(caught.value)
