"""The match probe on the shipped model: an image of another class is matched, and nobody downstream can tell."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from equivengine.contracts.probe import ProbeTask
from equivengine_plugins.probes.match import Match, MatchParams
from equivengine_plugins.probes.yardstick import measure


@pytest.fixture(scope="module")
def make_task(digits, images):
    """A task on two of the held-out digits, with every fortieth as a reference."""
    chosen = [images[k] for k in range(0, len(images), 40)]
    references = torch.stack([digits.preprocess(sample.load()) for sample in chosen])

    def build(original, target, **params):
        pair = [images[original], images[target]]
        return ProbeTask(
            digits,
            [digits.preprocess(sample.load()) for sample in pair],
            MatchParams(**params),
            seed=0,
            sample_digests=[sample.digest for sample in pair],
            labels=[sample.label for sample in pair],
            references=references,
            reference_labels=[sample.label for sample in chosen],
            reference_digests=[sample.digest for sample in chosen],
        )

    return build


@pytest.fixture(scope="module")
def found(make_task):
    return Match().run_batch([make_task(0, 8, tolerance=1e-3), make_task(2, 344, tolerance=1e-3)])


def test_images_of_other_classes_are_matched_within_the_box(found):
    for one in found:
        n = {name: scalar.value for name, scalar in one.summary.items()}
        assert one.status == "ok", one.message
        assert not [name for name, check in one.checks.items() if not check.passed]
        assert n["relative_start"] > 0.5
        assert n["relative_matched"] <= 1e-3
        assert n["relative_png"] < 5e-3
        assert (n["class_start"], n["class_matched"], n["class_png"]) == (0, 1, 1)
        assert n["ssim_target_matched"] < 0.5  # it does not look like the target
        assert n["outside"] == 0
        assert n["equivalents_3e2"] < n["equivalents_1e3"] < 3000


def test_the_smallest_change_is_smaller_at_the_same_distance(make_task, found):
    smallest = Match().run(make_task(0, 8, solver="minimal", tolerance=1e-2))
    course = {name: found[0].arrays[f"trace_{name}"].data for name in ("distance", "l2")}
    first = np.argmax(course["distance"] <= 1e-2 * smallest.summary["yardstick"].value)
    assert smallest.status == "ok", smallest.message
    assert smallest.summary["relative_matched"].value <= 1e-2
    assert smallest.summary["l2_matched"].value < 0.9 * course["l2"][first]
    assert smallest.summary["optimality"].value < 0.2


def test_the_yardstick_of_the_digits_is_that_of_their_classes(make_task):
    held = measure(make_task(0, 8))
    assert held.different_classes
    assert 15 < held.median < 16
    blind = measure(dataclasses.replace(make_task(0, 8), reference_labels=[None] * held.images))
    assert blind.pairs > held.pairs
    assert blind.median < held.median
