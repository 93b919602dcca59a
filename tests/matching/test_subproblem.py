"""The step of all second-order solvers, held against an independent solver and its conditions of optimality."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matching_cases import Linear, inputs

from equivengine.matching.linear import Formed, linearise
from equivengine.matching.problem import Problem
from equivengine.matching.subproblem import box_least_squares


def _case(seed: int, weight: float, n: int = 6, m: int = 30):
    f = Linear(n, m, seed)
    x = inputs(2, m, seed)
    problem = Problem(f, x, torch.randn(2, n, generator=torch.Generator().manual_seed(seed)).double() * 3, "fp64")
    which = torch.arange(2)
    generator = torch.Generator().manual_seed(seed + 1)
    residual = torch.randn(2, n, generator=generator, dtype=torch.float64) * 5
    anchor = torch.randn(2, m, generator=generator, dtype=torch.float64) / 4
    lower, upper = -problem.origin, 1 - problem.origin
    return problem, which, residual, anchor, torch.full((2,), weight, dtype=torch.float64), lower, upper


@settings(deadline=None)  # the first example pays for what torch sets up once
@given(st.integers(0, 200), st.sampled_from([1e-3, 1e-1, 1.0, 100.0]))
def test_the_step_meets_the_conditions_of_optimality(seed: int, weight: float):
    problem, which, residual, anchor, w, lower, upper = _case(seed, weight)
    model = linearise(problem, problem.origin, which, "dense")
    step = box_least_squares(model, residual, anchor, w, lower, upper)
    assert float(step.gap.max()) <= 1e-8
    assert bool(((step.d >= lower) & (step.d <= upper)).all())
    y = (model.forward(step.d) + residual) / w[:, None]
    fixed_point = torch.clamp(anchor - model.adjoint(y), lower, upper)
    size = float(model.adjoint(y).abs().max()) + 1
    assert float((step.d - fixed_point).abs().max()) <= 1e-7 * size


@pytest.mark.parametrize("weight", [1e-2, 1.0])
def test_the_step_is_that_of_scipys_bounded_least_squares(weight: float):
    optimize = pytest.importorskip("scipy.optimize")
    problem, which, residual, anchor, w, lower, upper = _case(3, weight)
    model = linearise(problem, problem.origin, which, "dense")
    step = box_least_squares(model, residual, anchor, w, lower, upper)
    for k in range(2):
        J = model.J[k].numpy()  # type: ignore[attr-defined]
        A = np.vstack([np.eye(J.shape[1]), J / weight**0.5])
        b = np.concatenate([anchor[k].numpy(), -residual[k].numpy() / weight**0.5])
        other = optimize.lsq_linear(A, b, (lower[k].numpy(), upper[k].numpy()), tol=1e-14)
        np.testing.assert_allclose(step.d[k].numpy(), other.x, atol=1e-6)


@pytest.mark.parametrize("weight", [1e-4, 1e-7, 1e-10])
def test_small_weights_are_solved_where_the_box_holds_no_solution(weight: float):
    # Singular values over four decades, and a residual that small ones cannot make up for within the box.
    generator = torch.Generator().manual_seed(11)
    n, m = 40, 200
    left, right = (torch.linalg.qr(torch.randn(k, n, generator=generator, dtype=torch.float64))[0] for k in (n, m))
    J = left @ torch.diag(torch.logspace(1, -3, n, dtype=torch.float64)) @ right.T
    origin = torch.rand(3, m, generator=generator, dtype=torch.float64)
    residual = torch.randn(3, n, generator=generator, dtype=torch.float64)
    model = Formed(J.expand(3, n, m))
    w = torch.full((3,), weight, dtype=torch.float64)
    step = box_least_squares(model, residual, torch.zeros_like(origin), w, -origin, 1 - origin, tolerance=1e-8)
    assert float(step.gap.max()) <= 1e-6
    # Whatever y is, |J d + r| >= (r . y + min over the box of y . J d) / |y|: a bound that no solver is needed for.
    pulled = model.adjoint(step.y)
    least = (residual * step.y).sum(1) + torch.minimum(-origin * pulled, (1 - origin) * pulled).sum(1)
    reached = torch.linalg.vector_norm(residual + model.forward(step.d), dim=1)
    slack = (w * (step.d.square().sum(1) + m)).sqrt()  # what the weight of |d|^2 may cost
    assert bool((reached <= least / torch.linalg.vector_norm(step.y, dim=1) + slack + 1e-6).all())
    assert float(reached.min()) > 0.1


def test_products_give_the_step_that_a_formed_jacobian_gives():
    problem, which, residual, anchor, w, lower, upper = _case(5, 1.0)
    exact = box_least_squares(linearise(problem, problem.origin, which, "dense"), residual, anchor, w, lower, upper)
    products = linearise(problem, problem.origin, which, "products")
    found = box_least_squares(products, residual, anchor, w, lower, upper, tolerance=1e-9)
    torch.testing.assert_close(found.d, exact.d, atol=1e-6, rtol=0)


def test_a_solved_problem_of_a_batch_does_not_change_while_others_go_on():
    problem, which, residual, anchor, w, lower, upper = _case(7, 1.0)
    residual[0] = 0
    anchor[0] = 0
    model = linearise(problem, problem.origin, which, "dense")
    step = box_least_squares(model, residual, anchor, w, lower, upper)
    assert float(step.d[0].abs().max()) == 0
    assert float(step.d[1].abs().max()) > 0
