"""What the match probe does within boxes, budgets and on 8-bit levels, and what it says where it fails."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from match_cases import CLASSIFIER, LINEAR, SHAPE, Map, curved, encoder_of, failed_checks, run, values
from PIL import Image

from equivengine_plugins.probes.match import Match

# -- regions -----------------------------------------------------------------------------------------------------------


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), l2=st.sampled_from([None, 0.2, 1.0]), linf=st.sampled_from([None, 0.03, 0.3]))
def test_what_is_found_lies_in_the_region_whether_it_matches_or_not(seed, l2, linf):
    found = run(curved(), original=seed, target=seed + 1, l2=l2, linf=linf)
    assert not failed_checks(found)
    n = values(found)
    assert n["outside"] == 0
    assert l2 is None or n["l2_matched"] <= l2 * (1 + 1e-6)
    assert linf is None or n["linf_matched"] <= linf
    assert (found.status == "ok") == (n["relative_matched"] <= 1.1e-6)


def test_a_target_beyond_the_budget_is_not_converged_and_says_by_how_much_and_what_to_do():
    found = run(l2=0.05)
    assert found.status == "not_converged"
    n = values(found)
    assert f"{n['relative_matched']:.3g} of the yardstick" in found.message
    assert "raise l2, set box=false" in found.message
    assert n["relative_matched"] > 0.1
    assert np.isnan(n["equivalents_1e3"])
    # No shift of length 0.05 does better by more than the optimality of a search: P is known.
    start = torch.from_numpy(found.arrays["embedding_original"].data - found.arrays["embedding_target"].data)
    assert n["distance_matched"] >= float(start.norm() - 0.05 * torch.linalg.matrix_norm(LINEAR.module.P.double(), 2))


def test_a_target_out_of_reach_of_the_box_is_within_reach_without_it():
    """Of a linear map the furthest embedding of the box in any direction is known."""
    P = LINEAR.module.P.detach()
    corner = (P.sum(dim=0) > 0).float()
    v = P @ corner
    encoder = encoder_of(Map(), embed_text=lambda prompts: -v[None])
    furthest = float((P.T @ (-v / v.norm())).clamp_min(0).sum())
    assert furthest < 0.9 * float(v.norm())  # the target lies at |v| in that direction
    boxed, free = (
        run(encoder, original=corner.reshape(SHAPE), target=None, text="opposite", box=box) for box in (True, False)
    )
    assert boxed.status == "not_converged"
    assert "set box=false" in boxed.message
    assert not failed_checks(boxed)
    assert values(boxed)["distance_matched"] >= float(v.norm()) - furthest - 1e-4
    assert free.status == "ok", free.message
    assert values(free)["outside"] > 0
    assert "in_box" not in free.checks


def test_one_jacobian_is_not_enough_for_a_curved_map():
    found = run(curved(), max_jacobians=1)
    assert found.status == "not_converged"
    assert "all 1 Jacobian is spent; raise max_jacobians" in found.message
    assert values(found)["jacobians"] == 1


def test_roundoff_is_good_enough_where_no_tolerance_was_asked_for():
    """A long constant part of the embedding makes 1e-6 of the distances less than its roundoff."""

    class Offset(Map):
        def forward(self, x):
            return super().forward(x) + 3e4

    encoder = encoder_of(Offset(), embed_text=lambda prompts: torch.ones(1, 4))  # f(x) all equal: within reach
    asked = run(encoder, target=None, text="even", box=False, tolerance=1e-6)
    assert asked.status == "not_converged"
    assert "roundoff of fp32; pass --precision fp64" in asked.message
    default = run(encoder, target=None, text="even", box=False)
    assert default.status == "ok"
    assert "matched to the roundoff of fp32" in default.message
    assert not failed_checks(default)
    precise = run(encoder, target=None, text="even", box=False, tolerance=1e-6, precision="fp64")
    assert precise.status == "ok", precise.message


# -- 8-bit levels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [{}, {"solver": "gd", "rate": 0.02, "tolerance": 1e-2}, {"linf": 0.4}])
def test_with_quantize_the_match_lies_on_levels_and_its_file_holds_all_of_it(solver):
    found = run(CLASSIFIER, quantize=True, **solver)
    n = values(found)
    assert not failed_checks(found)
    levels = found.arrays["matched"].data.astype(float) * 255
    assert np.abs(levels - levels.round()).max() < 1e-4
    with Image.open(io.BytesIO(found.pictures["matched"].png())) as file:
        assert np.array_equal(np.asarray(file).astype(np.float32) / np.float32(255), found.arrays["matched"].data[0])
    assert n["distance_png"] == pytest.approx(n["distance_matched"], abs=3 * n["noise"])
    assert n["distance_matched"] < 0.5 * n["distance_float_png"]  # than by rounding alone
    assert found.arrays["matched_float"].data.shape == SHAPE
    assert n["equivalents_lattice"] > 0
    assert n["class_float_png"] in (0, 1)
    assert len(Match().figures(found.arrays)) == 3


def test_levels_that_miss_a_tolerance_are_no_success_where_one_was_asked_for():
    asked = run(quantize=True, tolerance=1e-6)
    assert asked.status == "not_converged"
    assert "on 8-bit levels" in asked.message
    assert f"{values(asked)['relative_matched']:.3g} of the yardstick" in asked.message
    assert values(asked)["relative_float"] <= 2e-6
    default = run(quantize=True)
    assert default.status == "ok"
    assert values(default)["distance_matched"] == values(asked)["distance_matched"]


def test_without_a_box_the_match_on_levels_lies_in_the_range_all_the_same():
    found = run(box=False, quantize=True, original=3, target=4)
    assert 0 <= found.arrays["matched"].data.min() <= found.arrays["matched"].data.max() <= 1
