"""What `bench/honesty.py` claims, on one draw of the bank: bounds hold, and errors cover."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import honesty


@pytest.fixture(scope="module")
def runs():
    return list(honesty.runs(honesty.ESTIMATORS, 1, (1, 5), torch.device("cpu"), n=96, m=240))


@pytest.mark.parametrize("estimator", honesty.ESTIMATORS)
def test_bounds_hold_errors_cover_and_searches_end(runs, estimator):
    mine = [run for run in runs if run.labels["estimator"] == estimator]
    found = honesty.summary(mine)
    assert found["runs"] == 50
    assert found["values_ok"] > 100
    assert found["lower"] == found["residual"] == 1.0, honesty.failures(mine)
    assert found["error"] >= 0.99, honesty.failures(mine)
    assert found["ok"] >= 0.8
    assert found["misidentified"] == 0, honesty.failures(mine)
    if found["sharpness_median"] is not None:
        assert found["sharpness_median"] <= 50


def test_randomized_estimators_cost_less_than_the_matrix(runs):
    cost = {
        name: honesty.summary([run for run in runs if run.labels["estimator"] == name])["products"]
        for name in honesty.ESTIMATORS
    }
    assert cost["exact fp32"] == pytest.approx((96 + 1 + 2) / 96)
    assert cost["randomized fp32"] < 0.5


def test_a_broken_promise_is_noticed():
    def run(**changes):
        fields = {
            "labels": {"estimator": "e", "map": "m", "seed": 0, "rank": 2},
            "solvable": True,
            "flat": False,
            "status": "ok",
            "subspace": "identified",
            "products": 0.5,
            "lower": torch.tensor([True, True]),
            "residual": torch.tensor([True, True]),
            "over": torch.tensor([0.1, 0.5]),
            "sharp": torch.tensor([4.0]),
            "beyond": torch.tensor([]),
            "sine": 0.01,
            "subspace_error": 0.02,
        }
        return honesty.Run(**{**fields, **changes})

    good = [run() for _ in range(3)]
    assert all(honesty.bars(honesty.summary(good)).values())
    assert honesty.failures(good) == []
    for changes, bar, told in (
        ({"lower": torch.tensor([True, False])}, "lower", {"lower": 1}),
        ({"residual": torch.tensor([False, False])}, "residual", {"residual": 2}),
        ({"over": torch.tensor([0.1, 3.0])}, "error", {"error": 1, "over": 3.0}),
        ({"status": "not_converged"}, "ok", {"status": "not_converged"}),
        ({"sharp": torch.full((9,), 500.0)}, "sharpness_median", None),
        ({"sharp": torch.full((9,), 5000.0)}, "sharpness_p90", None),
        ({"sine": 0.03}, None, {"sine": 0.03, "subspace_error": 0.02}),
    ):
        bad = [run(**changes), *good]
        kept = honesty.bars(honesty.summary(bad))
        if bar:
            assert not kept[bar], bar
        told_of = [{k: v for k, v in row.items() if k in (told or {})} for row in honesty.failures(bad)]
        assert told_of == ([told] if told else [])
    assert honesty.summary([run(sine=0.03, flat=True), *good])["flat_misidentified"] == 1
    assert honesty.summary([run(sine=0.03, flat=True, subspace="not_identifiable")])["misidentified"] == 0


def test_the_sine_is_that_of_the_largest_angle():
    angle = 1e-5
    a = torch.eye(3, dtype=torch.float64)[:2]
    b = a.clone()
    b[1] = torch.tensor([0, torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))])
    assert honesty.sine(a, b) == pytest.approx(angle, rel=1e-6)
    assert honesty.sine(a, a.flip(0)) < 1e-15
