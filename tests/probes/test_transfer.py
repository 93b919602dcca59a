"""The transfer probe: known classes of toys, each head against another way, pairs and controls, digits."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter

import numpy as np
import pytest
import torch
from colours import CLASSES, Eye, N, encoder_of, gaussian, images, task_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine.statistics import wilson
from equivengine_plugins.probes.transfer import Transfer, TransferParams
from equivengine_plugins.probes.transfer.heads import make_heads
from equivengine_plugins.probes.transfer.matched import random_changes
from equivengine_plugins.probes.transfer.pairs import draw_pairs
from equivengine_plugins.probes.transfer.ridge import WEIGHTS, fit, onto_simplex
from equivengine_plugins.probes.transfer.trained import Population, trained_head

HEADS = ("own", "mean", "mean_cosine", "nn", "linear")


def params(**given):
    return TransferParams(**{"pairs": 6, "references": 24, **given})


@pytest.fixture(scope="module")
def result():
    return Transfer().run(task_of(params(), encoder_of(text=True)))


def values(found):
    return {name: scalar.value for name, scalar in found.summary.items()}


# -- the whole measurement, on classes that are known -----------------------------------------------------------------


def test_matched_inputs_have_their_targets_class_for_every_head_and_the_images_do_not(result):
    assert result.status == "ok", result.message
    assert not {name: check for name, check in result.checks.items() if not check.passed}
    assert list(result.arrays["head"].data) == [*HEADS, "text"]
    value = values(result)
    for head in (*HEADS, "text"):
        for rate, share in (("success", 1), ("success_png", 1), ("stayed", 0), ("before", 0), ("accuracy", 1)):
            assert value[f"{rate}_{head}"] == share, (rate, head)
        assert result.summary[f"success_{head}"].interval == wilson(6, 6)
        assert result.summary[f"success_{head}"].n == 6
    assert value["agreement"] == value["agreement_png"] == value["converged"] == 1
    assert value["relative_original"] > 0.9
    assert value["relative_matched_max"] <= 1e-3
    assert value["relative_matched"] < value["relative_png"] < 0.1


def test_arrays_list_every_pair_and_say_what_the_heads_were_asked(result):
    arrays = {name: array.data for name, array in result.arrays.items()}
    assert len(set(zip(arrays["original_id"], arrays["target_id"], strict=True))) == 6
    assert list(arrays["variant"]) == ["original", "target", "matched", "png", "control"]
    for head in HEADS:
        assert np.allclose(arrays[f"probabilities_{head}"].sum(-1), 1)
        assert np.array_equal(arrays[f"predicted_{head}"][:, 0], arrays["original_label"])
        assert np.array_equal(arrays[f"predicted_{head}"][:, 2], arrays["target_label"])
        confusion = arrays[f"confusion_{head}"]
        assert confusion.sum() == np.trace(confusion) == 6
        tv = 0.5 * np.abs(np.diff(arrays[f"probabilities_{head}"][:, 1:3], axis=1)).sum(-1)[:, 0]
        assert np.allclose(arrays[f"tv_{head}"][:, 2], tv)
        assert result.summary[f"tv_max_{head}"].value == pytest.approx(tv.max())
    assert (arrays["tv_own"][:, 0] > 0.9).all()
    gap = arrays["distance"] / result.summary["yardstick"].value
    assert np.allclose(arrays["relative"], gap)
    assert (arrays["relative"][:, 1] == 0).all()
    assert np.allclose(arrays["l2"][:, 4], arrays["l2"][:, 2], rtol=1e-4)


def test_what_an_encoder_does_not_see_changes_no_class():
    """A random change of the same length lies mostly outside of what is seen: the class rarely changes."""
    found = Transfer().run(task_of(params(pairs=24), count=9))
    value = values(found)
    assert value["control_own"] < 0.5
    assert value["success_own"] == 1
    assert value["relative_control"] > 0.3


def test_pairs_that_do_not_converge_are_counted_and_said():
    bent = Eye(lambda y: torch.sin(6 * y))
    found = Transfer().run(task_of(params(max_jacobians=1, tolerance=1e-6, heads="nn,linear"), encoder_of(bent)))
    assert found.status == "not_converged"
    assert "6 of 6 pairs did not come" in found.message
    assert found.summary["converged"].value == 0
    assert found.summary["success_nn"].n == 6
    assert found.summary["success_nn"].value < 1
    assert not [name for name in found.summary if "converged_" in name]
    assert set(found.arrays["stop"].data) == {"allowance"}


def test_a_pair_that_raises_is_counted_and_the_others_are_matched():
    """The derivative of |y_4 - 1/4| ** 1/2 is infinite where y_4 = 1/4: at the second image."""
    root = Eye(lambda y: torch.cat([y[:, :4], (y[:, 4:] - 0.25).abs().sqrt()], 1))
    with torch.no_grad():
        root.W[4] = 0
        root.W[4, 0] = 1
    task = task_of(params(pairs=30, other_class=False, heads="own", tolerance=0.05), encoder_of(root))
    task.samples[1].flatten()[0] = 0.75
    assert float(root(task.samples[1][None])[0, 4]) == 0
    found = Transfer().run(task)
    failed = found.arrays["stop"].data == "failed"
    assert found.status == "not_converged"
    assert found.summary["failed"].value == failed.sum() == 5
    assert set(found.arrays["original_id"].data[failed]) == {"image-1"}
    assert (found.arrays["l2"].data[failed, 2] == 0).all()
    assert found.arrays["converged"].data[~failed].sum() > 12
    assert "5 of 30 pairs failed" in found.message


def test_smallest_changes_are_smaller_and_transfer_as_well():
    lm, least = (Transfer().run(task_of(params(solver=solver))) for solver in ("lm", "minimal"))
    assert values(least)["l2"] <= values(lm)["l2"] * (1 + 1e-6)
    assert values(least)["agreement"] == 1


def test_precisions_agree():
    single, double = (Transfer().run(task_of(params(), precision=precision)) for precision in ("fp32", "fp64"))
    for head in HEADS:
        a, b = (found.arrays[f"probabilities_{head}"].data[:, :2] for found in (single, double))
        assert np.allclose(a, b, atol=1e-4)
    assert not [name for name, check in double.checks.items() if not check.passed]


def test_the_seed_decides_and_decides_everything():
    a, b, c = (Transfer().run(task_of(params(pairs=4), count=9, seed=seed)) for seed in (0, 0, 1))
    for name in a.arrays:
        assert np.array_equal(a.arrays[name].data, b.arrays[name].data), name
    assert not np.array_equal(a.arrays["original_id"].data, c.arrays["original_id"].data)


def test_on_digits_the_class_follows_the_embedding(digits):
    pictures = eqv.load_images("digits")
    chosen, others = [pictures[k] for k in range(4)], [pictures[k] for k in range(40, 120)]
    held = torch.stack([digits.preprocess(s.load()) for s in others])
    found = Transfer().run(
        ProbeTask(
            digits,
            [digits.preprocess(s.load()) for s in chosen],
            params(pairs=3, shown=3),
            seed=0,
            sample_digests=[s.digest for s in chosen],
            labels=[s.label for s in chosen],
            references=held,
            reference_labels=[s.label for s in others],
            reference_digests=[s.digest for s in others],
        )
    )
    converged = found.arrays["converged"].data
    assert converged.sum() >= 2
    for head in HEADS:
        predicted = found.arrays[f"predicted_{head}"].data[converged]
        assert (predicted[:, 2] == predicted[:, 1]).all()
        assert (predicted[:, 2] != predicted[:, 0]).all()
    # What the picture holds is what was classified as the PNG: the last of its three columns.
    levels = found.pictures["pairs"].levels
    assert levels.shape == (3 * 36 - 4, 3 * 36 - 4)
    files = np.stack([levels[36 * row : 36 * row + 32, 72:104] for row in range(3)])
    with torch.no_grad():
        classes = digits.classify(digits(torch.from_numpy(files)[:, None].float() / 255)).argmax(1)
    names = np.array(digits.loaded.class_names)[classes.numpy()]
    assert np.array_equal(names, found.arrays["predicted_own"].data[:, 3])


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
    """Classes on both sides of a plane, far along another axis: means and neighbours err there, the line does not."""
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


# -- what can go wrong ------------------------------------------------------------------------------------------------


def test_without_labels_only_the_own_head_is_asked_and_the_reason_stands():
    found = Transfer().run(task_of(params(), labelled=False))
    assert list(found.arrays["head"].data) == ["own"]
    assert "without head mean, mean_cosine, nn, linear: heads that are made from images" in found.message
    assert "without head text" in found.message
    assert found.provenance["only_different_labels"] is False
    assert "accuracy_own" not in found.summary


def test_inputs_that_are_no_images_are_measured_without_files():
    flat = encoder_of(nn.Sequential(nn.Linear(16, N)), input_shape=(16,))
    task = task_of(params())
    task = dataclasses.replace(
        task, encoder=flat, samples=[x.flatten() for x in task.samples], references=task.references.flatten(1)
    )
    found = Transfer().run(task)
    assert list(found.arrays["variant"].data) == ["original", "target", "matched", "control"]
    assert "no PNG" in found.message
    assert not found.pictures
    assert not [name for name in found.summary if "png" in name]
    assert Transfer().figures(found.arrays)


@pytest.mark.parametrize("range_", [(-1.0, 1.0), (0.0, 255.0)])
def test_files_hold_levels_of_the_models_own_range(range_):
    low, high = range_
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, N))
    encoder = encoder_of(module, input_range=range_)
    task = task_of(params(heads=("nn",), solver="lm"))
    scaled = dataclasses.replace(
        task,
        encoder=encoder,
        samples=[x * (high - low) + low for x in task.samples],
        references=task.references * (high - low) + low,
    )
    found = Transfer().run(scaled)
    step = (high - low) / 255
    gap = found.arrays["linf"].data
    assert (np.abs(gap[:, 3] - gap[:, 2]) <= step / 2 + 1e-4 * (high - low)).all()
    assert found.summary["success_png_nn"].value == 1


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"count": 1}, "no two different images", "--limit"),
        ({"given": {"heads": ("text",)}}, "no text tower", "leave prompts"),
        ({"given": {"prompts": ("a", "b")}}, "no text tower", "leave prompts"),
        ({"given": {"heads": ("nn",)}, "labelled": False}, "need labelled references", "--targets"),
        ({"own": False, "labelled": False}, "nothing can classify", "--targets"),
        ({"given": {"heads": ("own",)}, "own": False}, "no classifier of its own", "leave head own out"),
        ({"given": {"other_class": True}, "labelled": False}, "different labels", "other_class=false"),
        ({"references": 1, "given": {"heads": ("own",)}}, "no two reference images", "--targets"),
    ],
)
def test_what_cannot_be_measured_is_one_error_with_advice(change, message, hint):
    change = dict(change)
    given_, own = change.pop("given", {}), change.pop("own", True)
    with pytest.raises(eqv.UsageError, match=message) as caught:
        Transfer().run(task_of(params(**given_), encoder_of(own=own), **change))
    assert hint in caught.value.hint


def test_prompts_without_their_head_are_refused():
    with pytest.raises(eqv.UsageError, match="head text is not among"):
        Transfer().run(task_of(params(prompts=("a", "b"), heads=("own",)), encoder_of(text=True)))


@pytest.mark.parametrize(
    "returned",
    [
        pytest.param(torch.zeros(3, N), id="zeros"),
        pytest.param(torch.full((3, N), torch.nan), id="NaN"),
        pytest.param(torch.ones(3, 2), id="another length"),
        pytest.param(torch.ones(N), id="a vector"),
    ],
)
def test_a_text_tower_that_returns_no_embeddings_is_refused(returned):
    encoder = encoder_of(embed_text=lambda prompts: returned)
    with pytest.raises(eqv.ModelError, match="text tower"):
        Transfer().run(task_of(params(heads=("text",)), encoder))


@pytest.mark.parametrize(
    "bad",
    [
        {"pairs": 0},
        {"pairs": 10_001},
        {"pairs": 1.5},
        {"tolerance": 0},
        {"tolerance": 1},
        {"tolerance": float("nan")},
        {"max_jacobians": 0},
        {"references": 1},
        {"heads": "own,oracle"},
        {"heads": ()},
        {"heads": "own,own"},
        {"prompts": ("a cat",)},
        {"prompts": ("a cat", "a cat")},
        {"template": "a photo"},
        {"temperature": 0},
        {"solver": "gd"},
        {"shown": -1},
        {"unknown": 1},
    ],
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValidationError):
        TransferParams(**bad)


def test_heads_may_be_written_with_commas():
    assert TransferParams(heads="own, nn").heads == ("own", "nn")
    assert Transfer.references_of(TransferParams(references=17)) == 17


def test_figures_are_drawn_from_arrays_and_leave_nothing_open(result):
    from matplotlib import pyplot as plt

    figures = Transfer().figures(result.arrays)
    assert len(figures) == 7
    for figure in figures.values():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        assert buffer.getbuffer()[:8] == b"\x89PNG\r\n\x1a\n"
    matrix = figures["Classes before and after matching: the model's own head"]
    original, matched = matrix.axes[:2]
    assert [label.get_text() for label in matched.get_xticklabels()] == list(CLASSES)
    shown = matched.images[0].get_array()
    assert np.allclose(shown, result.arrays["probabilities_own"].data[:, 2])
    rings = [int(line.get_xdata()[0]) for line in matched.lines]
    assert rings == shown.argmax(1).tolist()
    assert rings != original.images[0].get_array().argmax(1).tolist()
    bars = figures["Predicted classes, by head"].axes[0]
    assert len(bars.patches) == 5 * 6
    assert plt.get_fignums() == []
