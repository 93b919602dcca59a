"""The pair that docs/match.md tells of: others reach its target, and where it stops is no stationary point."""

from __future__ import annotations

import pytest
import torch

import equivengine as eqv

TARGET, HARD, EASY = "digit-0222", "digit-0001", ("digit-0005", "digit-0050", "digit-0100")


@pytest.mark.slow
def test_the_target_is_out_of_reach_of_one_original_and_in_reach_of_others():
    encoder, images = eqv.load_encoder("digits", device="cpu"), eqv.load_images("digits")
    place = {images[k].id: k for k in range(len(images))}
    chosen = [encoder.preprocess(images[place[name]].load()) for name in (TARGET, HARD, *EASY)]
    with torch.no_grad():
        embedded = encoder(torch.stack(chosen)).double()
    apart = float(torch.linalg.vector_norm(embedded[1] - embedded[0]))
    target = embedded[:1].expand(1 + len(EASY), -1)
    found = eqv.matching.levenberg_marquardt(encoder, torch.stack(chosen[1:]), target, distance=1e-4 * apart)
    assert found.stop[1:] == ("reached",) * len(EASY)
    assert int(found.jacobians[1:].max()) <= 25
    assert found.stop[0] != "reached"
    # Not stationary, yet even a step across the whole box would not do: what is left lies along small singular values.
    assert 0.05 < float(found.reducible[0]) < 0.6


@pytest.mark.slow
def test_the_linf_change_gets_a_second_way_to_its_first_match_where_the_first_leads_nowhere():
    encoder, images = eqv.load_encoder("digits", device="cpu"), eqv.load_images("digits")
    place = {images[k].id: k for k in range(len(images))}
    x, other = (encoder.preprocess(images[place[name]].load())[None] for name in ("digit-0222", "digit-0032"))
    with torch.no_grad():
        target = encoder(other).double()
    found = eqv.matching.smallest_linf(encoder, x, target, distance=0.155)  # 1e-2 of the median distance of pairs
    assert found.stop == ("reached",)
    assert int(found.jacobians[0]) <= 120
    assert float((found.x - x).abs().max()) < 0.2
    assert float(found.optimality[0]) <= 0.03
