"""Smallest changes within a distance that is not small, in a box that is met, held against exact answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matching_cases import Bent, Linear, pairs

import equivengine as eqv

matching = eqv.matching


def _slsqp(f: torch.nn.Module, x: torch.Tensor, target: torch.Tensor, goal: float, start: np.ndarray) -> float:
    """Length of the change that scipy's SLSQP finds from ``start``; infinite where it breaks the constraint."""
    optimize = pytest.importorskip("scipy.optimize")
    origin = x.double().numpy()

    def slack(z: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.tensor(z)[None].requires_grad_(True)
        value = 1 - (f(point)[0] - target).square().sum() / goal**2
        (slope,) = torch.autograd.grad(value, point)
        return float(value.detach()), slope[0].numpy()

    found = optimize.minimize(
        lambda z: 0.5 * ((z - origin) ** 2).sum(),
        start,
        jac=lambda z: z - origin,
        bounds=[(0, 1)] * len(origin),
        constraints={"type": "ineq", "fun": lambda z: slack(z)[0], "jac": lambda z: slack(z)[1]},
        method="SLSQP",
        options={"maxiter": 300, "ftol": 1e-13},
    )
    return float(np.sqrt(2 * found.fun)) if slack(found.x)[0] > -1e-4 else np.inf


@pytest.mark.parametrize("share", [0.3, 0.02])
def test_of_a_linear_map_the_l2_change_is_the_optimum_of_the_convex_problem(share: float):
    f = Linear(6, 24, seed=2)
    x, target = pairs(f, 3, 24, seed=4)
    with torch.no_grad():
        goal = share * torch.linalg.vector_norm(f(x).double() - target, dim=1)
    found = matching.smallest_l2(f, x, target, distance=goal, precision="fp64")
    assert found.stop == ("reached",) * 3
    assert bool((found.distance <= goal).all())
    double = Linear(6, 24, seed=2).double()
    for k in range(3):
        exact = _slsqp(double, x[k], target[k], float(goal[k]), x[k].double().numpy())
        change = float(torch.linalg.vector_norm(found.x[k] - x[k].double()))
        assert exact * (1 - 1e-4) <= change <= exact * 1.01 + 0.1 * share * exact
    at_bounds = (found.x == 0) | (found.x == 1)
    assert bool(at_bounds.any())


def test_without_a_box_the_l2_change_has_a_closed_form():
    f = Linear(6, 24, seed=5)
    x, target = pairs(f, 2, 24, seed=6)
    found = matching.smallest_l2(f, x, target, distance=1e-6, precision="fp64", region=matching.Region.unbounded())
    A = f.A.detach().double()
    least = torch.linalg.vector_norm(torch.linalg.pinv(A) @ (target - x.double() @ A.T).T, dim=0)
    change = torch.linalg.vector_norm(found.x - x.double(), dim=1)
    torch.testing.assert_close(change, least, rtol=1e-5, atol=0)


def test_of_one_equation_the_linf_change_has_a_closed_form():
    """a . z = b with |z - x| <= t: t = |b - a . x| / sum |a|, unless a bound cuts coordinates short."""
    f = Linear(1, 20, seed=7)
    x = torch.full((1, 20), 0.5)
    a = f.A.detach().double()[0]
    reach = 0.3 * a.abs().sum()  # so that t is 0.3, within the box
    target = (x.double() @ a + reach)[None]
    found = matching.smallest_linf(f, x, target, distance=1e-6 * float(reach), precision="fp64")
    assert found.stop == ("reached",)
    assert float((found.x - x).abs().max()) == pytest.approx(0.3, rel=0.03)
    assert float((found.x - x).abs().max()) >= 0.3 * (1 - 1e-5)


def test_of_a_curved_map_no_start_of_another_solver_finds_a_change_that_is_clearly_smaller():
    f = Bent(3, 12)
    x, target = pairs(f, 4, 12, seed=8)
    with torch.no_grad():
        goal = 0.02 * torch.linalg.vector_norm(f(x).double() - target, dim=1)
    found = matching.smallest_l2(f, x, target, distance=goal, precision="fp64")
    assert found.stop == ("reached",) * 4
    double, random = Bent(3, 12).double(), np.random.default_rng(0)
    for k in range(4):
        starts = [x[k].double().numpy(), *random.random((5, 12))]
        best = min(_slsqp(double, x[k], target[k], float(goal[k]), start) for start in starts)
        change = float(torch.linalg.vector_norm(found.x[k] - x[k].double()))
        assert change <= best * 1.01
