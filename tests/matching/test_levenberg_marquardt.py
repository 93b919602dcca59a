"""Levenberg-Marquardt: roundoff where it can be reached, the region always, and no success where there is none."""

from __future__ import annotations

import pytest
import torch
from matching_cases import Bent, Linear, digits, inputs, pairs

import equivengine as eqv

Region = eqv.matching.Region
solve = eqv.matching.levenberg_marquardt


@pytest.mark.parametrize("jacobian", ["dense", "products"])
def test_without_a_box_every_target_of_a_linear_map_is_reached_to_roundoff(jacobian: str):
    f = Linear(8, 40)
    x, target = pairs(f, 5, 40)
    found = solve(f, x, 3 * target, distance=1e-9, region=Region.unbounded(), precision="fp64", jacobian=jacobian)
    assert found.stop == ("reached",) * 5
    with torch.no_grad():
        again = f.double()(found.x)
    torch.testing.assert_close(again, 3 * target, atol=1e-8, rtol=0)


def test_in_the_box_images_of_points_of_the_box_are_matched():
    f = Bent(6, 40)
    x, target = pairs(f, 8, 40)
    found = solve(f, x, target, distance=1e-5)
    assert found.stop == ("reached",) * 8
    assert found.x.dtype == torch.float32
    assert float(found.x.min()) >= 0
    assert float(found.x.max()) <= 1
    with torch.no_grad():
        again = f(found.x).double() - target
    torch.testing.assert_close(again, found.residual, atol=1e-5, rtol=0)


@pytest.mark.parametrize("jacobian", ["dense", "products"])
def test_budgets_hold_and_are_used_up_where_they_are_too_small(jacobian: str):
    f = Linear(8, 60)
    x, target = pairs(f, 3, 60)
    free = solve(f, x, target, distance=1e-5, jacobian=jacobian)
    length = torch.linalg.vector_norm(free.x - x, dim=1)
    tight = 0.3 * float(length.min())
    for region, norm, limit in ((Region(l2=tight), 2, tight), (Region(linf=0.02), torch.inf, 0.02)):
        found = solve(f, x, target, distance=1e-5, region=region, jacobian=jacobian, max_jacobians=40)
        used = torch.linalg.vector_norm((found.x - x).double(), ord=norm, dim=1)
        assert bool((used <= limit * (1 + 1e-6)).all())
        assert bool((used >= 0.99 * limit).all())
        assert "reached" not in found.stop


def test_the_best_point_of_an_l2_ball_is_that_of_an_independent_solver():
    optimize = pytest.importorskip("scipy.optimize")
    f = Linear(5, 20)
    x, target = pairs(f, 1, 20)
    found = solve(f, x, target, distance=0.0, region=Region(l2=0.4), precision="fp64", max_jacobians=100)
    A, b, start = f.A.detach().double().numpy(), target[0].numpy(), x[0].double().numpy()
    other = optimize.minimize(
        lambda z: 0.5 * ((A @ z - b) ** 2).sum(),
        start,
        jac=lambda z: A.T @ (A @ z - b),
        bounds=[(0, 1)] * 20,
        constraints={
            "type": "ineq",
            "fun": lambda z: 0.16 - ((z - start) ** 2).sum(),
            "jac": lambda z: 2 * (start - z),
        },
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-15},
    )
    assert float(found.distance[0]) == pytest.approx((2 * other.fun) ** 0.5, rel=1e-4)


def test_an_unreachable_target_is_no_success():
    f = Bent(6, 40)
    x = inputs(2, 40, 0)
    beyond = torch.full((2, 6), 100.0, dtype=torch.float64)
    found = solve(f, x, beyond, distance=1e-3)
    assert not bool(found.reached.any())
    assert set(found.stop) <= {"stalled", "allowance"}
    assert float(found.distance.min()) > 50


def test_a_pair_does_not_depend_on_the_rest_of_its_batch():
    f = Bent(6, 40)
    x, target = pairs(f, 6, 40)
    together = solve(f, x, target, distance=1e-4, precision="fp64")
    for k in (0, 5):
        alone = solve(f, x[[k]], target[[k]], distance=1e-4, precision="fp64")
        torch.testing.assert_close(alone.x[0], together.x[k], atol=1e-9, rtol=0)
        assert int(alone.cost.equivalents[0]) == int(together.cost.equivalents[k])


def test_cost_counts_n_products_for_each_formed_jacobian():
    f = Bent(6, 40)
    x, target = pairs(f, 3, 40)
    found = solve(f, x, target, distance=1e-5, jacobian="dense")
    assert torch.equal(found.cost.products, 6 * found.jacobians)
    last = found.trace.equivalents.nan_to_num(0).amax(dim=0)
    assert bool((last <= found.cost.equivalents).all())


def test_the_distance_never_rises_along_the_trace():
    f = Bent(6, 40)
    x, target = pairs(f, 3, 40)
    course = solve(f, x, target, distance=1e-5).trace.distance
    rises = course[1:] > course[:-1]
    assert not bool(rises.any())
    assert float(course[0].min()) > 1e-2


def test_starts_that_match_already_cost_one_forward_pass():
    f = Bent(6, 40)
    x, _ = pairs(f, 2, 40)
    with torch.no_grad():
        target = f(x).double()
    found = solve(f, x, target, distance=1e-3)
    assert found.stop == ("reached", "reached")
    assert found.cost.equivalents.tolist() == [1, 1]
    torch.testing.assert_close(found.x, x, atol=0, rtol=0)


def test_digits_of_another_class_are_matched_in_the_box_to_a_millionth_of_the_median_distance():
    encoder, x, target, median = digits()
    found = solve(encoder, x, target, distance=1e-6 * median)
    assert found.stop == ("reached", "reached")
    assert int(found.jacobians.max()) <= 60
    with torch.no_grad():
        double = encoder.at_precision("fp64")(found.x.double())
    assert float(torch.linalg.vector_norm(double - target, dim=1).max()) <= 2e-6 * median
    assert torch.equal(encoder.classify(double.float()).argmax(1), encoder.classify(target.float()).argmax(1))


def test_nan_derivatives_are_one_clear_error():
    class Root(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sqrt(0 * x[:, :3]) + x[:, :3]  # 0 times the infinite slope of a root

    with pytest.raises(eqv.NumericsError, match="NaN or infinity"):
        solve(Root(), inputs(1, 5, 0), torch.ones(1, 3), distance=1e-3, jacobian="dense")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"distance": -1.0}, "must not be negative", id="negative distance"),
        pytest.param({"distance": float("nan")}, "must not be negative", id="distance of NaN"),
        pytest.param({"distance": torch.ones(3)}, "one for each pair", id="distances of other pairs"),
        pytest.param({"max_jacobians": 0}, "max_jacobians", id="max_jacobians of 0"),
        pytest.param({"precision": "bf16"}, "unknown precision", id="unknown precision"),
        pytest.param({"target": torch.ones(1, 6)}, "one target embedding for each", id="one target for two"),
        pytest.param({"target": torch.ones(2, 5)}, "another length", id="target of another length"),
        pytest.param({"x": torch.ones(2, 40, dtype=torch.int64)}, "batch of inputs", id="integers"),
        pytest.param({"x": torch.full((2, 40), 2.0)}, "outside the box", id="outside the box"),
    ],
)
def test_wrong_arguments_are_refused_with_words(change: dict[str, object], said: str):
    f = Bent(6, 40)
    x, target = pairs(f, 2, 40)
    arguments = {"x": x, "target": target, "distance": 1e-3, **change}
    with pytest.raises(eqv.EngineError, match=said):
        solve(f, **arguments)  # type: ignore[arg-type]


def test_targets_and_starts_that_are_not_finite_are_refused():
    f = Bent(6, 40)
    x, target = pairs(f, 2, 40)
    with pytest.raises(eqv.NumericsError, match="target"):
        solve(f, x, target * torch.nan, distance=1e-3)
    with pytest.raises(eqv.NumericsError, match="start"):
        solve(lambda z: z[:, :6] / (z.sum(1, keepdim=True) > 1e6), x, target, distance=1e-3)


def test_the_last_pair_may_end_while_the_model_is_one_that_takes_no_empty_batch():
    class Reshapes(Bent):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.reshape(len(x), 4, -1).flatten(1))

    f = Reshapes(6, 40)
    x, target = pairs(f, 2, 40)
    for max_jacobians in (1, 60):
        found = solve(f, x, target, distance=1e-4, jacobian="products", max_jacobians=max_jacobians)
        assert found.stop == (("allowance",) if max_jacobians == 1 else ("reached",)) * 2
