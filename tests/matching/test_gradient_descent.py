"""The paper's procedure, step by step."""

from __future__ import annotations

import math

import pytest
import torch
from matching_cases import Bent, Linear, inputs, pairs

import equivengine as eqv

Region = eqv.matching.Region
descend = eqv.matching.gradient_descent


def test_a_step_is_the_learning_rate_times_j_transposed_r():
    f = Linear(5, 20)
    x, target = pairs(f, 2, 20)
    found = descend(f, x, target, distance=0.0, rate=1e-3, steps=1, precision="fp64")
    A = f.A.detach().double()
    expected = x.double() - 1e-3 * (x.double() @ A.T - target) @ A
    torch.testing.assert_close(found.x, expected, atol=1e-12, rtol=0)


def test_the_mean_loss_is_the_sum_loss_at_two_over_n_times_the_rate():
    f = Bent(5, 20)
    x, target = pairs(f, 2, 20)
    mean = descend(f, x, target, distance=0.0, rate=0.05, steps=20, loss="mean", precision="fp64")
    sum_ = descend(f, x, target, distance=0.0, rate=0.05 * 2 / 5, steps=20, precision="fp64")
    torch.testing.assert_close(mean.x, sum_.x, atol=1e-12, rtol=0)


def test_on_a_linear_map_the_course_is_that_of_the_closed_form():
    f = Linear(5, 20)
    x, target = pairs(f, 1, 20)
    A = f.A.detach().double()
    rate = 0.5 / float(torch.linalg.svdvals(A)[0]) ** 2
    found = descend(f, x, target, distance=0.0, rate=rate, steps=30, precision="fp64")
    r = x.double() @ A.T - target
    shrink = torch.linalg.matrix_power(torch.eye(5).double() - rate * A @ A.T, 30)
    assert float(found.trace.distance[30, 0]) == pytest.approx(float(torch.linalg.vector_norm(r @ shrink)), rel=1e-9)
    assert found.trace.distance.shape == (31, 1)
    assert found.trace.equivalents[:, 0].tolist() == [1 + 2 * k for k in range(31)]


def test_every_pair_has_its_own_rate_and_stops_on_its_own():
    f = Bent(6, 40)
    x, target = pairs(f, 3, 40)
    rates = torch.tensor([1e-3, 1e-2, 1e-1])
    together = descend(f, x, target, distance=0.3, rate=rates, steps=400, precision="fp64")
    for k in range(3):
        alone = descend(f, x[[k]], target[[k]], distance=0.3, rate=float(rates[k]), steps=400, precision="fp64")
        torch.testing.assert_close(alone.x[0], together.x[k], atol=1e-9, rtol=0)
        assert alone.stop[0] == together.stop[k]
    made = (~together.trace.distance.isnan()).sum(dim=0)
    assert len(set(made.tolist())) > 1


def test_both_thresholds_must_be_met():
    f = Bent(6, 40)
    x, target = pairs(f, 2, 40)
    loose = descend(f, x, target, distance=1.0, rate=0.05, steps=2000)
    strict = descend(f, x, target, distance=1.0, rate=0.05, steps=2000, cosine=0.9999)
    assert loose.stop == strict.stop == ("reached", "reached")
    last = strict.trace.cosine.nan_to_num(-1).amax(dim=0)
    assert bool((last > 0.9999).all())
    assert bool((strict.distance < loose.distance).all())


def test_clamped_descent_stays_in_the_box_and_the_papers_does_not():
    f = Linear(5, 30)
    x, target = pairs(f, 2, 30)
    far = 3 * target
    free = descend(f, x, far, distance=1e-3, rate=1e-2, steps=500)
    clamped = descend(f, x, far, distance=1e-3, rate=1e-2, steps=500, region=Region())
    assert float(free.x.max()) > 1
    assert float(clamped.x.min()) >= 0
    assert float(clamped.x.max()) <= 1


def test_a_rate_that_is_too_large_is_called_diverged_and_the_best_point_is_returned():
    f = Linear(5, 20)
    x, target = pairs(f, 2, 20)
    found = descend(f, x, target, distance=1e-3, rate=10.0, steps=100)
    assert found.stop == ("diverged", "diverged")
    assert bool(torch.isfinite(found.x).all())
    with torch.no_grad():
        again = torch.linalg.vector_norm(f(found.x).double() - target, dim=1)
    torch.testing.assert_close(again, found.distance, rtol=1e-4, atol=0)
    assert len(found.trace.distance) < 20


def test_parts_that_continue_are_one_long_descent():
    f = Bent(6, 40)
    x, target = pairs(f, 2, 40)
    whole = descend(f, x, target, distance=0.0, rate=0.02, steps=40)
    part = descend(f, x, target, distance=0.0, rate=0.02, steps=25)
    rest = descend(f, x, target, distance=0.0, rate=0.02, steps=15, start=part.x)
    torch.testing.assert_close(rest.x, whole.x, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"rate": 0.0}, "learning rate", id="rate of 0"),
        pytest.param({"rate": math.inf}, "learning rate", id="infinite rate"),
        pytest.param({"steps": 0}, "steps", id="no steps"),
        pytest.param({"loss": "median"}, "unknown loss", id="unknown loss"),
    ],
)
def test_wrong_arguments_are_refused_with_words(change: dict[str, object], said: str):
    f = Linear(5, 20)
    arguments = {"distance": 1e-3, "rate": 1e-3, **change}
    with pytest.raises(eqv.UsageError, match=said):
        descend(f, inputs(1, 20, 0), torch.zeros(1, 5), **arguments)  # type: ignore[arg-type]
