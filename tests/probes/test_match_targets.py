"""Texts as targets, and many pairs at a time: what fails alone, and what must not change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from match_cases import LINEAR, SHAPE, Cusp, Map, curved, encoder_of, gaussian, image, run, task_of, values
from torch import nn

import equivengine as eqv
from equivengine_plugins.probes.match import Match, MatchParams

# -- text --------------------------------------------------------------------------------------------------------------


def tower(prompts):
    return torch.stack([0.01 * LINEAR(image(len(prompt))[None])[0] for prompt in prompts])


def test_a_text_is_matched_at_the_length_of_the_original_and_the_result_says_so():
    found = run(encoder_of(Map(), embed_text=tower), target=None, text="zebra", box=False, tolerance=1e-5)
    assert found.status == "ok", found.message
    target = torch.from_numpy(found.arrays["embedding_target"].data)
    direction = tower(["zebra"])[0].double()
    start = torch.from_numpy(found.arrays["embedding_original"].data)
    assert float(target.norm()) == pytest.approx(float(start.norm()), rel=1e-6)
    assert float(nn.functional.cosine_similarity(target, direction, dim=0)) == pytest.approx(1, abs=1e-9)
    assert "scaled to the length of f(original)" in found.message
    n = values(found)
    assert n["text_norm"] == pytest.approx(float(direction.norm()), rel=1e-6)
    assert n["text_scaled"] == pytest.approx(float(start.norm()), rel=1e-6)
    assert n["cosine_matched"] == pytest.approx(1, abs=1e-8)
    assert "target" not in found.arrays
    assert "target" not in found.pictures
    assert len(Match().figures(found.arrays)) == 3
    assert (Match.arity_of(MatchParams(text="a")), Match.arity_of(MatchParams())) == ("one", "pair")


def test_an_encoder_without_a_text_tower_is_one_clear_error():
    with pytest.raises(eqv.UsageError, match="no text tower") as caught:
        run(target=None, text="zebra")
    assert "--model" in caught.value.hint


@pytest.mark.parametrize(
    "bad", [pytest.param(torch.zeros(1, 4), id="zeros"), pytest.param(torch.full((1, 4), float("nan")), id="NaN")]
)
def test_a_text_without_a_direction_is_refused(bad):
    with pytest.raises(eqv.NumericsError, match="no direction"):
        run(encoder_of(Map(), embed_text=lambda prompts: bad), target=None, text="zebra")


def test_text_embeddings_of_another_length_are_refused():
    with pytest.raises(eqv.UsageError, match="not lie in the space"):
        run(encoder_of(Map(), embed_text=lambda prompts: torch.ones(1, 5)), target=None, text="zebra")


# -- batches -----------------------------------------------------------------------------------------------------------


def test_pairs_of_a_batch_get_what_they_get_alone():
    encoder = curved(classify=lambda f: f)
    tasks = [task_of(encoder, original=k, target=k + 20) for k in range(5)]
    together = Match().run_batch(tasks)
    for given_task, one in zip(tasks, together, strict=True):
        alone = Match().run(given_task)
        assert one.provenance["solved_together"] == 5
        assert alone.provenance["solved_together"] == 1
        assert np.abs(one.arrays["matched"].data - alone.arrays["matched"].data).max() < 1e-5
        assert values(one)["jacobians"] == values(alone)["jacobians"]
        assert one.status == alone.status == "ok"


def test_the_same_task_gives_the_same_bits_and_seeds_change_nothing():
    first, again, other = (
        Match().run_batch(
            [dataclasses.replace(task_of(curved(), original=k, target=k + 20), seed=seed) for k in (1, 2)]
        )
        for seed in (0, 0, 7)
    )
    for a, b, c in zip(first, again, other, strict=True):
        for name, array in a.arrays.items():
            assert np.array_equal(array.data, b.arrays[name].data, equal_nan=array.data.dtype.kind == "f")
            assert np.array_equal(array.data, c.arrays[name].data, equal_nan=array.data.dtype.kind == "f")


def test_a_pair_without_a_gradient_fails_alone():
    encoder = encoder_of(Cusp())
    bad = image(3)
    bad.view(-1)[0] = 0.5
    tasks = [task_of(encoder, original=o, target=t, tolerance=1e-3) for o, t in ((1, 21), (bad, 22), (2, 23))]
    found = Match().run_batch(tasks)
    assert [one.status for one in found] == ["ok", "failed", "ok"]
    assert "NaN" in found[1].message
    with pytest.raises(eqv.NumericsError):
        Match().run(tasks[1])


def test_a_pair_of_one_embedding_fails_alone_with_one_message():
    twin = image(4) + torch.linalg.svd(LINEAR.module.P.double())[2][-1].reshape(SHAPE).float() * 0.01
    tasks = [task_of(original=1, target=21), task_of(original=image(4), target=twin), task_of(original=2, target=22)]
    found = Match().run_batch(tasks)
    assert [one.status for one in found] == ["ok", "failed", "ok"]
    assert "one embedding already: there is nothing to match" in found[1].message
    assert found[0].provenance["solved_together"] == 2
    alone = Match().run(tasks[1])
    assert alone.status == "failed"
    assert alone.message.splitlines()[0] == found[1].message.splitlines()[0]


def test_an_original_out_of_range_fails_alone():
    outside = image(3) + 0.5
    found = Match().run_batch([task_of(original=outside), task_of(original=2)])
    assert [one.status for one in found] == ["failed", "ok"]
    assert "outside the box" in found[0].message


def test_an_original_within_the_tolerance_is_left_as_it_is_and_says_so():
    near = image(1) + 1e-3 * gaussian(*SHAPE).abs()
    near = near.clamp(0, 1)
    found = run(original=near, target=1, tolerance=0.5)
    assert found.status == "ok"
    assert "within the tolerance already" in found.message
    assert np.array_equal(found.arrays["matched"].data, found.arrays["original"].data)
    assert len(Match().figures(found.arrays)) == 3
