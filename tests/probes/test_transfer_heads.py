"""The parts of the probe transfer, against another way: pairs, controls, heads."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from colours import CLASSES, N, encoder_of, gaussian, images, task_of
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer_cases import params

import equivengine as eqv
from equivengine_plugins.probes.transfer import Transfer
from equivengine_plugins.probes.transfer.heads import make_heads
from equivengine_plugins.probes.transfer.matched import random_changes
from equivengine_plugins.probes.transfer.pairs import draw_pairs
from equivengine_plugins.probes.transfer.ridge import WEIGHTS, fit, onto_simplex
from equivengine_plugins.probes.transfer.trained import Population, trained_head

# -- pairs ------------------------------------------------------------------------------------------------------------


def test_every_eligible_pair_is_drawn_as_often_as_any_other():
    base = task_of(params(), count=5)  # labels 0 1 2 0 1: 16 ordered pairs of different ones
    drawn: Counter = Counter()
    for seed in range(800):
        pairs = draw_pairs(dataclasses.replace(base, seed=seed), 3, None)
        assert len(pairs) == 3
        assert pairs.eligible == 16
        drawn.update(zip(pairs.original.tolist(), pairs.target.tolist(), strict=True))
    assert len(drawn) == 16
    assert all(base.labels[a] != base.labels[b] for a, b in drawn)
    # 150 are expected of each, with a standard deviation of 11.
    assert max(abs(count - 150) for count in drawn.values()) < 50


@given(st.lists(st.sampled_from(["a", "b", None]), min_size=2, max_size=7), st.booleans(), st.integers(0, 99))
def test_pairs_are_the_eligible_ones_each_once(labels, other_class, seed):
    task = task_of(params(), count=len(labels), seed=seed)
    task = dataclasses.replace(task, labels=labels, sample_digests=["same", "same", *task.sample_digests[2:]])
    eligible = {
        (a, b)
        for a in range(len(labels))
        for b in range(len(labels))
        if a != b
        and {a, b} != {0, 1}
        and (not other_class or (labels[a] is not None and labels[b] is not None and labels[a] != labels[b]))
    }
    if not eligible:
        with pytest.raises(eqv.UsageError):
            draw_pairs(task, 100, other_class)
        return
    pairs = draw_pairs(task, 100, other_class)
    assert sorted(zip(pairs.original.tolist(), pairs.target.tolist(), strict=True)) == sorted(eligible)
    assert pairs.places == sorted({place for pair in eligible for place in pair})


def test_fewer_pairs_than_asked_for_are_all_taken_and_said():
    found = Transfer().run(task_of(params(pairs=50), count=3))
    assert "has 6 ordered pairs of different labels" in found.message
    assert found.status == "ok"
    assert found.summary["success_own"].n == 6


# -- controls ---------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1.5), st.integers(0, 1000), st.sampled_from([(0.0, 1.0), (-1.0, 1.0)]))
def test_random_changes_have_the_length_asked_for_and_stay_in_the_range(length, seed, range_):
    low, high = range_
    x = images(4, seed=seed)[0] * (high - low) + low
    task = dataclasses.replace(task_of(params(), encoder_of(input_range=range_)), seed=seed)
    moved = random_changes(task, x, torch.full((4,), length))
    apart = torch.linalg.vector_norm((moved - x).flatten(1), dim=1)
    assert torch.allclose(apart, torch.full((4,), length), rtol=1e-5, atol=1e-6)
    assert low <= float(moved.min()) <= float(moved.max()) <= high


def test_a_length_that_no_point_of_the_box_has_gives_the_furthest_along_the_direction():
    x = torch.full((1, 1, 4, 4), 0.5)
    moved = random_changes(task_of(params()), x, torch.tensor([5.0]))
    assert torch.linalg.vector_norm(moved - x) == pytest.approx(2.0, rel=1e-5)


# -- heads, against another way ---------------------------------------------------------------------------------------


def population(count=30, spread=0.4, seed=0):
    index = torch.arange(count) % 3
    centres = 2 * torch.eye(3, N).double()
    z = centres[index] + spread * gaussian(count, N, seed=seed).double()
    return Population.of(z, [CLASSES[k] for k in index.tolist()])


def test_nearest_means_and_neighbours_by_brute_force():
    held, z = population(), gaussian(50, N, seed=5).double()
    labels = np.array(held.labels)
    means = np.stack([held.embeddings.numpy()[labels == name].mean(0) for name in CLASSES])
    apart = np.linalg.norm(z.numpy()[:, None] - means, axis=-1)
    mean = trained_head("mean", held, 100.0, "")
    scores = mean.scores(z)
    assert np.array_equal(scores.argmax(1), apart.argmin(1))
    within = sum(((held.embeddings.numpy()[labels == c] - m) ** 2).sum() for c, m in zip(CLASSES, means, strict=True))
    density = np.exp(-(apart**2) / (2 * within / (27 * N)))
    assert np.allclose(mean.probabilities(scores), density / density.sum(1, keepdims=True))

    cosine = trained_head("mean_cosine", held, 3.0, "").scores(z).numpy()
    expected = z.numpy() @ means.T / np.linalg.norm(z, axis=1)[:, None] / np.linalg.norm(means, axis=1)
    assert np.allclose(cosine, expected)

    nearest = np.linalg.norm(z.numpy()[:, None] - held.embeddings.numpy(), axis=-1).argmin(1)
    nn_head = trained_head("nn", held, 1.0, "")
    assert np.array_equal(np.array(CLASSES)[nn_head.scores(z).argmax(1)], labels[nearest])
    assert np.array_equal(nn_head.probabilities(nn_head.scores(z)).sum(1), np.ones(50))


def test_the_ridge_is_that_of_the_normal_equations_and_left_out_errors_are_those_of_refits():
    held = population(21, spread=1.0)
    found = fit(held.embeddings, held.index, 3)
    z, y = held.embeddings, torch.nn.functional.one_hot(held.index, 3).double()
    top = float(torch.linalg.matrix_norm(z - z.mean(0), 2)) ** 2

    def solved(z, y, weight):
        """[Z 1] with a penalty on all but the intercept."""
        a = torch.cat([z, torch.ones(len(z), 1, dtype=z.dtype)], 1)
        penalty = torch.diag(torch.tensor([weight * top] * N + [0.0], dtype=z.dtype))
        return torch.linalg.solve(a.T @ a + penalty, a.T @ y)

    def left_out(weight):
        keep = ~torch.eye(len(z), dtype=torch.bool)
        fits = [solved(z[k], y[k], weight) for k in keep]
        return torch.stack([torch.cat([row, row.new_ones(1)]) @ w for row, w in zip(z, fits, strict=True)])

    w = solved(z, y, found.penalty)
    fresh = gaussian(7, N, seed=9).double()
    assert torch.allclose(found.scores(fresh), fresh @ w[:N] + w[N], atol=1e-10)
    errors = {weight: float((left_out(weight) - y).square().sum()) for weight in WEIGHTS}
    assert found.penalty == min(errors, key=errors.__getitem__)
    right = (left_out(found.penalty).argmax(1) == held.index).double().mean()
    assert found.left_out == pytest.approx(float(right))


def test_a_linear_head_separates_what_a_line_separates():
    """Classes on both sides of a plane, far along another axis: means and neighbors err there, the line does not."""
    z = gaussian(60, N, seed=2).double()
    z[:, 1] *= 30
    side = (z[:, 0] > 0).long()
    z[:, 0] += 2 * side - 1
    found = fit(z[:40], side[:40], 2)
    assert bool((found.scores(z[40:]).argmax(1) == side[40:]).all())
    assert found.left_out == 1


@given(st.lists(st.lists(st.floats(-3, 3), min_size=4, max_size=4), min_size=1, max_size=5), st.integers(0, 99))
def test_onto_simplex_gives_the_nearest_probabilities(rows, seed):
    scores = torch.tensor(rows, dtype=torch.float64)
    found = onto_simplex(scores)
    assert torch.allclose(found.sum(1), torch.ones(len(rows), dtype=torch.float64), atol=1e-12)
    assert float(found.min()) >= 0
    others = torch.distributions.Dirichlet(torch.ones(4, dtype=torch.float64)).sample((50,))
    # The projection p of s satisfies (s - p) . (q - p) <= 0 for every q of a convex set.
    inner = ((scores - found)[:, None] * (others[None] - found[:, None])).sum(-1)
    assert float(inner.max()) <= 1e-12


def test_prompts_are_made_from_labels_and_the_temperature_is_the_models_where_it_says():
    encoder = encoder_of(text=True, details={"logit_scale": 12.5})
    task = task_of(params(heads=("text",), template="this is {}, yes {}"), encoder)
    (head,), missing = make_heads(task, population(), ["blue", "green", "red"])
    assert not missing
    assert head.details["prompts"][2] == "this is red, yes red"
    assert head.details["temperature"] == 12.5
    z = gaussian(4, N).double()
    cosine = z / z.norm(dim=1, keepdim=True)
    assert torch.allclose(head.scores(z), cosine[:, :3])
    assert torch.allclose(head.probabilities(head.scores(z)), (12.5 * cosine[:, :3]).softmax(1))
    for given_, expected in ((None, 100.0), (7.0, 7.0)):
        plain = task_of(params(heads=("text",), temperature=given_), encoder_of(text=True))
        assert make_heads(plain, population(), CLASSES)[0][0].details["temperature"] == expected


def test_prompts_that_are_given_are_the_classes():
    found = Transfer().run(task_of(params(prompts=["very red", "quite blue", "a hat"]), encoder_of(text=True)))
    assert list(found.arrays["class_text"].data) == ["very red", "quite blue", "a hat"]
    assert "accuracy_text" not in found.summary  # no label is one of these prompts
    assert found.summary["success_text"].value == 1


def test_references_that_are_in_a_pair_make_no_head():
    task = task_of(params(heads=("nn",)))
    copies = dataclasses.replace(
        task,
        references=torch.cat([torch.stack(list(task.samples)), task.references]),
        reference_labels=["a lie"] * 6 + list(task.reference_labels),
        reference_digests=[*task.sample_digests, *task.reference_digests],
    )
    found = Transfer().run(copies)
    assert "a lie" not in found.arrays["class_reference"].data
    assert found.provenance["heads"]["nn"]["references"] == 24
