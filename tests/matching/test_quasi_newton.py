"""A Jacobian that is learned on the way: what updates make true, what they cost, and when J is formed after all."""

from __future__ import annotations

import pytest
import torch
from matching_cases import Bent, Linear, inputs, pairs

import equivengine as eqv
from equivengine.matching.descend import begin
from equivengine.matching.problem import Problem
from equivengine.matching.quasi_newton import _Learner, approach

Region = eqv.matching.Region
solve = eqv.matching.levenberg_marquardt
N, M = 160, 700


class Steep(Linear):
    """A linear map whose singular values fall over three decades."""

    def __init__(self, n: int, m: int, seed: int = 0) -> None:
        super().__init__(n, m, seed)
        with torch.no_grad():
            U, _, Vh = torch.linalg.svd(self.A, full_matrices=False)
            self.A.copy_(U @ torch.diag(torch.logspace(0, -3, n)) @ Vh)


class Counting(Bent):
    """Counts the inputs that it is evaluated at."""

    seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return super().forward(x)


def learner(f: torch.nn.Module, x: torch.Tensor, target: torch.Tensor, goal: float, forms: bool = False) -> _Learner:
    """All pairs at their originals, in float64, free of bounds."""
    problem = Problem(f, x, target, "fp64")
    state = begin(problem, problem.origin)
    bounds = (torch.full_like(problem.origin, -torch.inf), torch.full_like(problem.origin, torch.inf))
    goals, most = torch.full_like(state.apart, goal), torch.full_like(state.jacobians, 5)
    return _Learner(problem, state, goals, bounds, most, None, torch.arange(len(x)), forms)


def dense(found: _Learner) -> torch.Tensor:
    """The learned B, [k, n, m]."""
    return found.Y.mT @ found.W


def test_updates_make_the_model_right_along_what_they_were_taught():
    f = Linear(20, 50)
    x, target = pairs(f, 2, 50)
    found = learner(f, x, target, 0.0)
    A = f.A.detach().double()
    random = torch.Generator().manual_seed(3)
    everything = torch.ones(2, dtype=torch.bool)
    for _ in range(12):
        v, d = (torch.randn(2, size, generator=random, dtype=torch.float64) for size in (20, 50))
        found.secant(d @ A.T - (dense(found) @ d[..., None])[..., 0], d, everything, everything)
        torch.testing.assert_close((dense(found) @ d[..., None])[..., 0], d @ A.T)
        found.learn(v, v @ A, everything)
        torch.testing.assert_close((dense(found).mT @ v[..., None])[..., 0], v @ A)
    unit = found.Y @ found.Y.mT
    torch.testing.assert_close(unit, torch.diag_embed((unit.diagonal(dim1=1, dim2=2) > 0.5).double()))


def test_only_the_pairs_that_were_taught_learn():
    f = Linear(20, 50)
    x, target = pairs(f, 3, 50)
    found = learner(f, x, target, 0.0)
    before = dense(found)
    some = torch.tensor([False, True, False])
    v = torch.randn(3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found.learn(v, v @ f.A.detach().double(), some)
    changed = (dense(found) - before).abs().amax(dim=(1, 2)) > 1e-12
    assert torch.equal(changed, some)


def test_a_map_is_matched_for_fewer_products_than_one_jacobian_takes():
    f = Bent(N, M)
    x, target = pairs(f, 3, M)
    found = solve(f, x, target, distance=1e-3)
    assert found.stop == ("reached",) * 3
    assert found.jacobians.tolist() == [0, 0, 0]
    assert int(found.cost.products.max()) < N // 2
    assert float(found.x.min()) >= 0
    assert float(found.x.max()) <= 1
    with torch.no_grad():
        again = torch.linalg.vector_norm(f(found.x).double() - target, dim=1)
    torch.testing.assert_close(again, found.distance, atol=1e-5, rtol=0)


def test_every_evaluation_is_counted():
    f = Counting(N, M)
    x, target = pairs(f, 3, M)
    f.seen = 0
    found = solve(f, x, target, distance=1e-3)
    assert int(found.jacobians.sum()) == 0
    assert int(found.cost.forwards.sum()) == f.seen
    last = found.trace.equivalents.nan_to_num(0).amax(dim=0)
    assert bool((last <= found.cost.equivalents).all())


def test_j_is_formed_where_learning_is_slow_and_only_if_it_may_be():
    f = Steep(N, M)
    x, target = pairs(f, 2, M)
    problems = {}
    for forms in (True, False):
        problem = Problem(f, x, target, "fp64")
        state = begin(problem, problem.origin)
        bounds = Region.unbounded().bounds(problem.origin, problem.dtype)
        goal, most = torch.full_like(state.apart, 1e-4), torch.full_like(state.jacobians, 3)
        approach(problem, state, goal, bounds, most, None, forms=forms)
        problems[forms] = (state, problem)
    state, problem = problems[True]
    assert bool((state.apart <= 1e-4).all())
    assert state.jacobians.tolist() == [1, 1]  # of a linear map one is enough
    assert bool((problem.products >= N).all())
    state, problem = problems[False]
    assert state.jacobians.tolist() == [0, 0]
    assert float(state.apart.min()) > 1e-4
    assert bool((problem.products < N).all())


@pytest.mark.parametrize("jacobian", ["auto", "dense"])
def test_what_learning_leaves_is_done_by_exact_steps(jacobian: str):
    f = Steep(N, M)
    x, target = pairs(f, 2, M)
    found = solve(f, x, target, distance=1e-3, region=Region.unbounded(), jacobian=jacobian, precision="fp64")
    assert found.stop == ("reached",) * 2
    assert bool((found.jacobians >= 1).all())


def test_budgets_hold():
    f = Bent(N, M)
    x, target = pairs(f, 2, M)
    length = torch.linalg.vector_norm(solve(f, x, target, distance=1e-3).x - x, dim=1)
    for region, norm, limit in ((Region(l2=0.3 * float(length.min())), 2, 0.3 * float(length.min())),
                                (Region(linf=0.02), torch.inf, 0.02)):  # fmt: skip
        found = solve(f, x, target, distance=1e-3, region=region, max_jacobians=3)
        used = torch.linalg.vector_norm((found.x - x).double(), ord=norm, dim=1)
        assert bool((used <= limit * (1 + 1e-6)).all())
        assert bool((used >= 0.9 * limit).all())
        assert "reached" not in found.stop


def test_a_pair_does_not_depend_on_the_rest_of_its_batch():
    f = Bent(N, M)
    x, target = pairs(f, 4, M)
    together = solve(f, x, target, distance=1e-3, precision="fp64")
    alone = solve(f, x[[3]], target[[3]], distance=1e-3, precision="fp64")
    torch.testing.assert_close(alone.x[0], together.x[3], atol=1e-8, rtol=0)
    assert int(alone.cost.equivalents[0]) == int(together.cost.equivalents[3])


def test_the_distance_never_rises_along_the_trace():
    f = Bent(N, M)
    x, target = pairs(f, 2, M)
    course = solve(f, x, target, distance=1e-3).trace.distance
    rises = course[1:] > course[:-1]
    assert not bool(rises.any())


def test_one_jacobian_is_kept_for_an_allowance_of_one():
    f = Steep(N, M)
    x, target = pairs(f, 1, M)
    found = solve(f, x, target, distance=1e-9, max_jacobians=1)
    assert found.stop == ("allowance",)
    assert found.jacobians.tolist() == [1]


def test_nan_gradients_are_one_clear_error():
    class Root(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sqrt(0 * x[:, :N]) + x[:, :N]  # 0 times the infinite slope of a root

    with pytest.raises(eqv.NumericsError, match="NaN or infinity"):
        solve(Root(), inputs(1, N + 5, 0), torch.ones(1, N), distance=1e-3)


def test_a_map_that_cannot_be_differentiated_is_one_clear_error():
    with pytest.raises(eqv.ModelError):
        solve(lambda x: x.detach()[:, :N] ** 2, inputs(1, M, 0), torch.ones(1, N), distance=1e-3)
