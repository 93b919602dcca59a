"""Where a pair stands still: stationary under its bounds, or in a valley that steps cannot follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matching_cases import Bent, Linear, inputs, pairs

import equivengine as eqv

matching = eqv.matching


def test_what_is_left_of_an_unreachable_target_cannot_be_reduced():
    f = Bent(6, 40)
    x = inputs(2, 40, 0)
    found = matching.levenberg_marquardt(f, x, torch.full((2, 6), 100.0).double(), distance=1e-3, precision="fp64")
    assert set(found.stop) <= {"stalled", "allowance"}
    assert float(found.reducible.max()) <= 1e-2


def test_on_a_linear_map_it_is_what_scipys_bounded_least_squares_saves():
    optimize = pytest.importorskip("scipy.optimize")
    f = Linear(8, 30)
    x, target = pairs(f, 3, 30)
    goal = torch.linalg.vector_norm(f(x).double() - 3 * target, dim=1)  # far beyond the box
    # One Jacobian, damped by much: not at the minimum yet.
    found = matching.levenberg_marquardt(f, x, 3 * target, distance=0.0, precision="fp64", max_jacobians=1)
    assert bool((found.distance < goal).all())
    A = f.A.detach().double().numpy()
    for k in range(3):
        best = optimize.lsq_linear(A, 3 * target[k].numpy(), (0, 1), tol=1e-14)
        expected = 1 - (2 * best.cost) ** 0.5 / float(found.distance[k])
        assert float(found.reducible[k]) == pytest.approx(expected, abs=1e-6)
        assert expected > 0.01


def test_it_is_unknown_of_pairs_that_arrived_and_without_formed_jacobians():
    f = Bent(6, 40)
    x, target = pairs(f, 2, 40)
    assert bool(matching.levenberg_marquardt(f, x, target, distance=1e-3).reducible.isnan().all())
    spent = matching.levenberg_marquardt(f, x, target, distance=1e-5, max_jacobians=1, jacobian="products")
    assert bool(spent.reducible.isnan().all())


def test_in_a_valley_that_bends_the_linear_model_promises_what_steps_do_not_give():
    class Valley(torch.nn.Module):
        """A steep bent wall, and a slow way along it."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            u, v = x[:, 0], x[:, 1]
            return torch.stack([300 * (v - 0.5 - 0.3 * torch.sin(12 * u)), u], dim=1)

    x, target = torch.tensor([[0.05, 0.67]]), torch.tensor([[0.0, 0.95]], dtype=torch.float64)
    two, five = (
        matching.levenberg_marquardt(Valley(), x, target, distance=1e-6, start=x, max_jacobians=most) for most in (2, 5)
    )
    assert two.stop == five.stop == ("allowance",)
    assert float(two.reducible[0]) > 0.1
    assert float(five.distance[0]) > 0.99 * float(two.distance[0])


@pytest.mark.parametrize("solve", [matching.smallest_l2, matching.smallest_linf])
def test_the_smallest_changes_say_it_too(solve: object):
    f = Bent(6, 40)
    x = inputs(1, 40, 0)
    beyond = torch.full((1, 6), 100.0, dtype=torch.float64)
    found = solve(f, x, beyond, distance=1e-2, precision="fp64")  # type: ignore[operator]  # one of several functions
    assert not bool(found.reducible.isnan().any())
    assert float(found.reducible[0]) <= 1e-2
    assert np.isnan(float(found.optimality[0]))
