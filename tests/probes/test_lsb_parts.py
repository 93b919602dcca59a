"""The parts of the probe lsb: levels, draws, moments, what changes are held against."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lsb_cases import SHAPE, Map, gaussian, image, parts_of, task_of

from equivengine_plugins.probes.lsb import Lsb, LsbParams
from equivengine_plugins.probes.lsb.draws import KINDS, drawn, moments
from equivengine_plugins.probes.lsb.lattice import Lattice, nearest, truncated
from equivengine_plugins.probes.lsb.yardstick import held_against
from equivengine_plugins.probes.yardstick import measure

RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


# -- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("range_", RANGES)
def test_levels_are_recognised_and_read_back_exactly(range_):
    lattice = Lattice.around(torch.zeros(3), range_, 1)
    assert torch.equal(nearest(lattice.table, range_), torch.arange(256))
    assert torch.equal(truncated(lattice.table, (0.0, 1.0) if range_ == RANGES[0] else range_), torch.arange(256)) or (
        range_ != RANGES[0]  # elsewhere scaling to [0, 1] is itself rounded
    )
    assert lattice.step == pytest.approx((range_[1] - range_[0]) / 255)
    assert torch.equal(nearest(torch.tensor([range_[0] - 1, range_[1] + 1]), range_), torch.tensor([0, 255]))


def test_truncation_is_what_torchvision_does_when_it_saves():
    from torchvision.transforms.functional import to_pil_image

    x = torch.arange(256).repeat(8).reshape(1, 8, 256) / 255
    noisy = x + 1e-7 * gaussian(1, 8, 256)
    saved = torch.from_numpy(np.array(to_pil_image(noisy))).long()
    assert torch.equal(truncated(noisy[0], (0.0, 1.0)), saved)
    lowered = float((saved < (x[0] * 255).round()).double().mean())
    assert 0.3 < lowered < 0.5


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), levels=st.integers(1, 8), data=st.data())
def test_moves_stay_on_the_scale_and_within_the_budget(seed, levels, data):
    ends = data.draw(st.lists(st.sampled_from([0, 1, 3, 100, 250, 254, 255]), min_size=2, max_size=6))
    x = torch.tensor(ends) / 255
    lattice = Lattice.around(x, (0.0, 1.0), levels)
    assert torch.equal(lattice.x, x)
    wild = (20 * gaussian(16, len(ends), seed=seed)).round()
    for moves in (lattice.clamp(wild), lattice.furthest(wild, lattice.clamp(0 * wild))):
        points = lattice.points(moves)
        assert float(points.min()) >= 0
        assert float(points.max()) <= 1
        assert int(moves.abs().max()) <= levels
        assert torch.equal(nearest(points, (0.0, 1.0)) - nearest(x, (0.0, 1.0)), moves.long())
    ahead = (lattice.furthest(wild, torch.zeros_like(wild, dtype=torch.int16)) * wild).sum(1)
    assert bool((ahead >= (lattice.clamp(3 * gaussian(16, len(ends), seed=seed + 1)) * wild).sum(1)).all())
    narrow = lattice.within(1)
    assert torch.equal(narrow.clamp(wild), Lattice.around(x, (0.0, 1.0), 1).clamp(wild))


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_draws_depend_on_their_number_alone_and_have_the_moments_stated(kind, levels):
    x = image(3, (1, 4, 4))
    given = task_of(Map(2, x), x, LsbParams(levels=levels, draws=4))
    evaluation, _ = parts_of(given)
    moves = drawn(given, evaluation, kind, 0, 3000)
    assert torch.equal(moves[7:20], drawn(given, evaluation, kind, 7, 13))
    assert torch.equal(moves, evaluation.lattice.clamp(moves))
    if kind == "truncation":
        assert int(moves.max()) == 0
        assert 0.2 < float((moves == -1).double().mean()) < 0.5
        return
    assert set(moves.abs().unique().tolist()) <= ({0, levels} if kind == "signs" else set(range(levels + 1)))
    mean, variance = moments(evaluation, kind, levels)
    error = (variance / 3000).sqrt()
    assert bool(((moves.double().mean(0) - mean).abs() <= 5 * error + 1e-12).all())
    assert torch.allclose(moves.double().var(0), variance, rtol=0.15, atol=1e-12)


def test_the_mean_square_is_that_of_all_moves_together():
    x = image(1, (1, 2, 3))
    given = task_of(Map(2, x), x, precision="fp64")
    evaluation, linear = parts_of(given)
    outcomes = [[max(-int(k), min(255 - int(k), step)) for step in (-1, 0, 1)] for k in evaluation.lattice.start]
    everything = torch.tensor(list(itertools.product(*outcomes)))
    truth = float(linear.lengths(everything).square().mean())
    assert linear.mean_square(*moments(evaluation, "uniform", 1)) == pytest.approx(truth, rel=1e-12)


def test_images_off_the_lattice_or_out_of_range_would_be_noticed():
    x = torch.full(SHAPE, 254 / 255)
    given = task_of(Map(2, x), x)
    evaluation, _ = parts_of(given)
    moves = torch.ones(1, x.numel(), dtype=torch.int16)
    evaluation.differences(moves)
    assert (evaluation.visited.beyond, evaluation.visited.off_lattice) == (0, 0)
    evaluation.differences(-2 * moves)
    assert evaluation.visited.beyond == 1
    evaluation._look_at(evaluation.lattice.x[None] - 0.4 / 255)
    assert evaluation.visited.off_lattice == pytest.approx(0.4, abs=1e-4)


def test_an_input_between_levels_is_rounded_first_and_says_how_far_that_moved_it():
    x = image(2)
    off = (x + 0.3 / 255 * gaussian(*SHAPE).sign()).clamp(0, 1)
    module = Map(2, x)
    clean, found = (Lsb().run(task_of(module, start, LsbParams(draws=4))) for start in (x, off))
    assert np.array_equal(clean.arrays["levels"].data, found.arrays["levels"].data)
    assert found.summary["worst"].value == clean.summary["worst"].value
    assert clean.summary["rounding"].value == 0
    moved = float(torch.linalg.vector_norm(module((off - x)[None] + x)))
    assert found.summary["rounding"].value == pytest.approx(moved, rel=1e-3)
    assert found.summary["rounding_levels"].value == pytest.approx(0.3, abs=1e-3)
    assert "rounded first" in found.message
    assert clean.message == ""


@pytest.mark.parametrize("range_", RANGES)
def test_a_level_is_a_255th_of_the_input_range(range_):
    low, high = range_
    x = image(4) * (high - low) + low
    module = Map(3, x)
    found = Lsb().run(task_of(module, x, LsbParams(draws=4), input_range=range_))
    step = (high - low) / 255
    c = torch.linalg.vector_norm(module.P, dim=0)
    assert found.summary["pixel"].value == pytest.approx(float(c.max()) * step, rel=1e-3)
    assert found.summary["rounding_levels"].value < 1e-4
    assert found.message == ""
    failed = {name for name, check in found.checks.items() if not check.passed}
    assert not failed


def test_classes_are_compared_where_there_is_a_classifier():
    x = torch.full(SHAPE, 0.5).mul(255).round() / 255
    module = Map(1, x, lambda y: torch.cat([y + 1e-4, -y], 1))
    classify = lambda embeddings: embeddings  # noqa: E731
    changed = Lsb().run(task_of(module, x, classify=classify)).summary
    assert changed["class_changed_worst"].value in (0, 1)
    assert 0 < changed["class_changed_uniform"].value < 1
    assert changed["class_changed_uniform"].n == 64
    far = Map(1, x, lambda y: torch.cat([y + 10, -y], 1))
    stays = Lsb().run(task_of(far, x, classify=classify)).summary
    assert {stays[f"class_changed_{kind}"].value for kind in (*KINDS, "singular", "pixel", "worst")} == {0.0}
    assert not [name for name in Lsb().run(task_of(far, x)).summary if name.startswith("class")]


def test_changes_are_held_against_reference_pairs_or_where_there_are_none_the_embedding_itself():
    x = image(0)
    alone = task_of(Map(2, x - 1), x)
    references = torch.stack([image(seed) for seed in range(5)])
    among = dataclasses.replace(alone, references=references, reference_labels=["a", "b", "a", "b", None])
    held = held_against(among, alone.encoder(x[None])[0])
    assert (held.length, held.n) == (measure(among).median, 4)
    assert held.interval[0] <= held.length <= held.interval[1]
    found = Lsb().run(among).summary
    assert found["yardstick"].value == held.length
    assert found["relative_worst"].value == pytest.approx(found["worst"].value / held.length)
    assert "different classes" in found["relative_worst"].group
    for few in (references[:0], references[:1], references[:1].expand(3, *SHAPE)):
        found = Lsb().run(dataclasses.replace(alone, references=few, reference_digests=["same"] * len(few))).summary
        assert found["yardstick"].value == pytest.approx(float(alone.encoder(x[None]).norm()), rel=1e-5)
        assert found["yardstick"].interval is None
    assert (Lsb.references_of(LsbParams()), Lsb.references_of(LsbParams(references=0))) == (64, 0)
