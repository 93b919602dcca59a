"""The smallest changes, held against independent solvers where the map is linear."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matching_cases import Bent, Linear, digits, inputs, pairs

import equivengine as eqv

matching = eqv.matching


@pytest.mark.parametrize("jacobian", ["dense", "products"])
def test_on_a_linear_map_the_l2_change_is_that_of_an_independent_solver(jacobian: str):
    optimize = pytest.importorskip("scipy.optimize")
    f = Linear(8, 40)
    x, target = pairs(f, 2, 40)
    found = matching.smallest_l2(f, x, target, distance=1e-4, precision="fp64", jacobian=jacobian)
    assert found.stop == ("reached", "reached")
    A = f.A.detach().double().numpy()
    for k in range(2):
        start = x[k].double().numpy()
        other = optimize.minimize(
            lambda z, start=start: 0.5 * ((z - start) ** 2).sum(),
            np.linalg.lstsq(A, target[k].numpy(), rcond=None)[0],
            jac=lambda z, start=start: z - start,
            bounds=[(0, 1)] * 40,
            constraints={"type": "eq", "fun": lambda z, k=k: A @ z - target[k].numpy(), "jac": lambda z: A},
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-14},
        )
        change = float(torch.linalg.vector_norm(found.x[k] - x[k].double()))
        assert change == pytest.approx((2 * other.fun) ** 0.5, rel=2e-3)
    assert float(found.optimality.max()) < (1e-6 if jacobian == "dense" else 0.05)


def test_on_a_linear_map_the_linf_change_is_the_optimum_of_the_linear_programme():
    optimize = pytest.importorskip("scipy.optimize")
    n, m = 8, 40
    f = Linear(n, m)
    x, target = pairs(f, 3, m)
    found = matching.smallest_linf(f, x, target, distance=1e-5, precision="fp64")
    assert found.stop == ("reached",) * 3
    A = f.A.detach().double().numpy()
    for k in range(3):
        start = x[k].double().numpy()
        one = np.ones((m, 1))
        other = optimize.linprog(
            np.r_[np.zeros(m), 1],
            A_ub=np.block([[np.eye(m), -one], [-np.eye(m), -one]]),
            b_ub=np.r_[start, -start],
            A_eq=np.c_[A, np.zeros(n)],
            b_eq=target[k].numpy(),
            bounds=[(0, 1)] * m + [(0, None)],
        )
        change = float((found.x[k] - x[k].double()).abs().max())
        assert other.fun * (1 - 1e-3) <= change <= other.fun * 1.03
    assert float(found.optimality.max()) <= 0.03


def test_the_smallest_changes_are_no_larger_than_those_of_any_match_and_meet_the_goal():
    f = Bent(6, 40)
    x, target = pairs(f, 4, 40)
    goal = 1e-3
    any_ = matching.levenberg_marquardt(f, x, target, distance=goal)
    smallest = matching.smallest_l2(f, x, target, distance=goal)
    flattest = matching.smallest_linf(f, x, target, distance=goal)
    assert smallest.stop == flattest.stop == ("reached",) * 4

    def size(found: eqv.matching.Matching, order: float) -> torch.Tensor:
        return torch.linalg.vector_norm((found.x - x).double(), ord=order, dim=1)

    assert bool((size(smallest, 2) <= 1.001 * size(any_, 2)).all())
    assert bool((size(flattest, torch.inf) <= 1.001 * size(smallest, torch.inf)).all())
    for found in (smallest, flattest):
        assert bool((found.distance <= goal).all())
        assert float(found.x.min()) >= 0
        assert float(found.x.max()) <= 1
        with torch.no_grad():
            again = torch.linalg.vector_norm(f(found.x).double() - target, dim=1)
        torch.testing.assert_close(again, found.distance, atol=1e-5, rtol=0)


def test_an_embedding_that_is_near_already_needs_no_change():
    f = Bent(6, 40)
    x, _ = pairs(f, 2, 40)
    with torch.no_grad():
        target = f(x).double() + 1e-4
    for solve in (matching.smallest_l2, matching.smallest_linf):
        found = solve(f, x, target, distance=1e-2)
        assert torch.equal(found.x, x)
        assert found.stop == ("reached", "reached")
        assert found.optimality.tolist() == [0, 0]


def test_unreachable_targets_are_no_success():
    f = Bent(6, 40)
    x = inputs(1, 40, 0)
    beyond = torch.full((1, 6), 100.0, dtype=torch.float64)
    for solve in (matching.smallest_l2, matching.smallest_linf):
        found = solve(f, x, beyond, distance=1e-2, max_jacobians=12)
        assert not bool(found.reached.any())
        assert float(found.distance.min()) > 50


def test_a_budget_that_the_smallest_change_exceeds_is_not_called_reached():
    f = Linear(8, 40)
    x, target = pairs(f, 2, 40)
    length = torch.linalg.vector_norm(matching.smallest_l2(f, x, target, distance=1e-3).x - x, dim=1)
    region = matching.Region(l2=0.9 * float(length.min()))
    assert not bool(matching.smallest_l2(f, x, target, distance=1e-3, region=region).reached.any())


def test_on_digits_the_smallest_change_is_well_below_that_of_the_default_solver():
    encoder, x, target, median = digits()
    goal = 1e-2 * median
    smallest = matching.smallest_l2(encoder, x, target, distance=goal)
    any_ = matching.levenberg_marquardt(encoder, x, target, distance=goal)
    assert smallest.stop == ("reached", "reached")
    length = [torch.linalg.vector_norm((each.x - x).flatten(1), dim=1) for each in (smallest, any_)]
    assert bool((length[0] <= 0.85 * length[1]).all())
    assert float(smallest.optimality.max()) < 0.3


@pytest.mark.parametrize("solve", [matching.smallest_l2, matching.smallest_linf])
def test_wrong_arguments_are_refused_with_words(solve: object):
    f = Linear(5, 20)
    x, target = pairs(f, 1, 20)
    with pytest.raises(eqv.UsageError, match="positive distance"):
        solve(f, x, target, distance=0.0)  # type: ignore[operator]
    with pytest.raises(eqv.UsageError, match="max_jacobians"):
        solve(f, x, target, distance=1e-3, max_jacobians=0)  # type: ignore[operator]


def test_the_linf_change_needs_a_formed_jacobian():
    f = Linear(5, 20)
    x, target = pairs(f, 1, 20)
    with pytest.raises(eqv.UsageError, match="formed Jacobian"):
        matching.smallest_linf(f, x, target, distance=1e-3, jacobian="products")  # type: ignore[arg-type]
