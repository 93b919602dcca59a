"""The transfer probe: known classes of toys, each head against another way, pairs and controls, digits."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from colours import CLASSES, Eye, encoder_of, task_of
from transfer_cases import params

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine.statistics import wilson
from equivengine_plugins.probes.transfer import Transfer

HEADS = ("own", "mean", "mean_cosine", "nn", "linear")


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
    worth = value["pairs_worth"]
    assert 1 <= worth < 6, "pairs share images"
    for head in (*HEADS, "text"):
        for rate, share in (("success", 1), ("success_png", 1), ("stayed", 0), ("before", 0), ("accuracy", 1)):
            assert value[f"{rate}_{head}"] == share, (rate, head)
        assert result.summary[f"success_{head}"].interval == pytest.approx(wilson(worth, worth))
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
