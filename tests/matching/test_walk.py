"""Null walks: classes known in closed form, claims that hold for any map, bad input."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import equivengine as eqv
from equivengine.matching import Region, null_walk

M = 12


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Bent(nn.Module):
    """f(x) = A x + bend * sin(3 B x): smooth, and never flat."""

    def __init__(self, n=3, m=M, bend=0.3, seed=0):
        super().__init__()
        self.A = nn.Parameter(gaussian(n, m, seed=seed))
        self.B = nn.Parameter(gaussian(n, m, seed=seed + 1) / 3)
        self.bend = bend

    def forward(self, x):
        x = x.flatten(1)
        A, B = self.A.to(x.dtype), self.B.to(x.dtype)
        return x @ A.T + self.bend * torch.sin(3 * x @ B.T)


def largest_between(f, walk, count=64):
    """Largest |f - f(x)| on the polygon through the points, from many points of each segment, [B]."""
    points = walk.points.double()
    target = f(points[0])
    shares = torch.linspace(0, 1, count, dtype=torch.float64)
    found = [
        torch.linalg.vector_norm(f(a + t * (b - a)) - target, dim=1)
        for a, b in itertools.pairwise(points)
        for t in shares
    ]
    return torch.stack(found).amax(dim=0).detach()


@pytest.mark.parametrize("jacobian", ["dense", "products"])
@pytest.mark.parametrize("seed", range(3))
def test_on_a_linear_map_a_walk_ends_at_the_optimum_of_the_linear_program(jacobian, seed):
    """Nearest points to z + h g in a polytope, again and again, are the proximal point method for max <g, z>."""
    scipy = pytest.importorskip("scipy.optimize")
    A, x, g = gaussian(3, M, seed=seed), uniform(1, M, seed=seed), gaussian(1, M, seed=seed + 9)
    walk = null_walk(lambda z: z @ A.T, x, distance=1e-3, direction=g, steps=30, precision="fp64", jacobian=jacobian)
    best = scipy.linprog(-g[0].numpy(), A_eq=A.numpy(), b_eq=(A @ x[0]).numpy(), bounds=[(0, 1)] * M)
    gained = float(walk.progress[-1, 0]) * float(g.norm()) + float(g @ x[0])
    # Within the tolerance of the class a little more can be had than on it; steps by products are inexact.
    assert gained == pytest.approx(-best.fun, abs=(2e-3 if jacobian == "dense" else 1e-2) * float(g.norm()))
    assert walk.end == ("stalled",)
    assert float(walk.distance.max()) <= 1e-3


def test_on_a_sphere_a_walk_arrives_at_another_point_of_the_sphere():
    centre = torch.full((1, M), 0.5, dtype=torch.float64)
    sphere = lambda z: ((z - centre) ** 2).sum(1, keepdim=True)  # noqa: E731
    x, goal = (centre + 0.4 * v / v.norm() for v in (gaussian(1, M), gaussian(1, M, seed=5)))
    walk = null_walk(sphere, x, distance=1e-3, towards=goal, steps=60, precision="fp64")
    assert walk.end == ("arrived",)
    assert torch.allclose(walk.points[-1], goal, atol=1e-3)
    angle = float(torch.acos(((x - centre) * (goal - centre)).sum() / 0.16))
    assert float(walk.length.nansum()) == pytest.approx(0.4 * angle, rel=5e-3)  # along the great circle
    assert float(largest_between(sphere, walk)) <= 1.05e-3


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), bend=st.sampled_from([0.0, 0.1, 1.0]), to_goal=st.booleans())
def test_points_and_segments_stay_in_the_box_and_near_the_class_and_only_advance(seed, bend, to_goal):
    f, x = Bent(bend=bend, seed=seed), uniform(4, M, seed=seed)
    x[0] = x[0].round()  # on the bounds
    way = {"towards": uniform(4, M, seed=seed + 2)} if to_goal else {"direction": gaussian(4, M, seed=seed + 2)}
    distance = torch.tensor([1e-3, 1e-2, 1e-2, 1e-1], dtype=torch.float64)
    walk = null_walk(f, x, distance=distance, steps=8, precision="fp64", **way)
    assert float(walk.points.min()) >= 0
    assert float(walk.points.max()) <= 1
    apart = torch.linalg.vector_norm(f(walk.points.flatten(0, 1)).reshape(-1, 4, 3) - f(x), dim=2)
    assert torch.allclose(apart, walk.distance, atol=1e-12)
    assert bool((walk.distance <= distance).all())
    assert bool((walk.between.nan_to_num(0) <= distance).all())
    assert bool((largest_between(f, walk) <= 1.3 * distance).all())
    made = ~walk.between.isnan()
    assert torch.equal(made.sum(0), walk.steps)
    assert bool((walk.progress.diff(dim=0)[made] > 0).all())
    assert torch.allclose(walk.length, torch.linalg.vector_norm(walk.points.diff(dim=0), dim=2), atol=1e-12)
    assert bool((walk.steps[1:] >= 1).all())


def test_walks_of_a_batch_are_those_made_alone():
    f, x, g = Bent(), uniform(3, M), gaussian(3, M, seed=3)
    distance = torch.tensor([1e-3, 1e-2, 5e-2], dtype=torch.float64)
    together = null_walk(f, x, distance=distance, direction=g, steps=6, precision="fp64")
    for k in range(3):
        alone = null_walk(f, x[k : k + 1], distance=distance[k], direction=g[k : k + 1], steps=6, precision="fp64")
        assert torch.allclose(together.points[:, k], alone.points[:, 0], atol=1e-6)
        assert together.jacobians[k] == alone.jacobians[0]
        assert together.cost.equivalents[k] == alone.cost.equivalents[0]


def test_products_alone_walk_as_far_as_a_formed_jacobian():
    f, x, g = Bent(n=3), uniform(2, M), gaussian(2, M, seed=3)
    dense, products = (
        null_walk(f, x, distance=1e-2, direction=g, steps=6, precision="fp64", jacobian=way)
        for way in ("dense", "products")
    )
    assert (dense.mode, products.mode) == ("dense", "products")
    assert torch.allclose(dense.progress[-1], products.progress[-1], rtol=0.1)
    assert bool((products.distance <= 1e-2).all())


def test_fp32_walks_hold_points_that_float32_holds_within_the_box():
    walk = null_walk(Bent().float(), uniform(2, M).float(), distance=1e-3, direction=gaussian(2, M), steps=6)
    assert walk.points.dtype == torch.float32
    assert float(walk.points.min()) >= 0
    assert float(walk.points.max()) <= 1
    assert bool((walk.distance <= 1e-3).all())


def test_shape_is_kept_and_budgets_hold():
    f, x = Bent(), uniform(2, 3, 2, 2)
    region = Region(l2=0.3, linf=0.15)
    walk = null_walk(f, x, distance=1e-2, direction=gaussian(2, 3, 2, 2), region=region, steps=10, precision="fp64")
    assert walk.points.shape[1:] == (2, 3, 2, 2)
    moved = (walk.points - walk.points[0]).flatten(2)
    assert float(moved.abs().max()) <= 0.15 + 1e-9
    assert 0.2 <= float(torch.linalg.vector_norm(moved, dim=2).max()) <= 0.3 + 1e-9


def test_without_a_null_space_nothing_moves():
    """n = m: the class of x is x alone."""
    A = torch.linalg.qr(gaussian(M, M)).Q
    walk = null_walk(lambda z: z @ A.T, uniform(1, M), distance=1e-6, direction=gaussian(1, M), precision="fp64")
    assert walk.end == ("stalled",)
    assert float((walk.points - walk.points[0]).abs().max()) <= 1e-6


def test_a_map_that_ignores_its_input_is_crossed_straight():
    x, goal = uniform(1, M), uniform(1, M, seed=1)
    walk = null_walk(lambda z: 0 * z[:, :2] + 1, x, distance=1e-6, towards=goal, steps=20, precision="fp64")
    assert walk.end == ("arrived",)
    assert torch.allclose(walk.points[-1], goal, atol=1e-9)


def test_another_target_may_be_kept_to():
    f, x = Bent(), uniform(1, M)
    target = f(x).detach() + 1e-3
    walk = null_walk(f, x, distance=1e-2, direction=gaussian(1, M), target=target, steps=4, precision="fp64")
    apart = torch.linalg.vector_norm(f(walk.points[:, 0]) - target, dim=1).detach()
    assert torch.allclose(apart, walk.distance[:, 0])
    assert float(apart.max()) <= 1e-2


def test_the_model_is_looked_at_inside_segments():
    """A wall across the way: both sides of it have one embedding, and no step may leap over it."""

    def wall(z):
        return torch.exp(-(((z[:, :1] - 0.5) / 0.05) ** 2))

    x = torch.full((1, 4), 0.25, dtype=torch.float64)
    g = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    walk = null_walk(wall, x, distance=1e-3, direction=g, step=0.4, steps=10, precision="fp64")
    assert float(walk.points[-1, 0, 0]) < 0.5
    assert walk.end == ("stalled",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"direction": None}, "a direction or a goal", id="neither direction nor goal"),
        pytest.param({"towards": uniform(1, M, seed=1)}, "a direction or a goal", id="direction and goal"),
        pytest.param({"direction": torch.zeros(1, M)}, "nowhere to go", id="direction of zeros"),
        pytest.param({"direction": torch.ones(1, M + 1)}, "another shape", id="direction of another shape"),
        pytest.param({"direction": torch.full((1, M), math.nan)}, "NaN", id="direction of NaN"),
        pytest.param({"steps": 0}, "at least 1", id="no steps"),
        pytest.param({"step": 0.0}, "positive", id="step of 0"),
        pytest.param({"step": math.inf}, "positive", id="infinite step"),
        pytest.param({"distance": -1.0}, "negative", id="negative distance"),
        pytest.param(
            {"distance": 1e-3, "target": torch.zeros(1, 3)}, "within its tolerance", id="start off its target"
        ),
        pytest.param({"region": Region(0.9, 1.0)}, "outside the box", id="outside the box"),
        pytest.param({"precision": "bf16"}, "precision", id="unknown precision"),
    ],
)
def test_bad_arguments_are_refused(change, words):
    options = {"distance": 1e-2, "direction": gaussian(1, M), "precision": "fp64"} | change
    with pytest.raises(eqv.UsageError, match=words):
        null_walk(Bent(), uniform(1, M), **options)


def test_a_goal_that_is_the_start_is_refused():
    x = uniform(1, M)
    with pytest.raises(eqv.UsageError, match="nowhere to go"):
        null_walk(Bent(), x, distance=1e-2, towards=x)


def test_embeddings_and_derivatives_that_are_not_finite_are_named():
    x, g = torch.zeros(1, M), torch.ones(1, M)
    with pytest.raises(eqv.NumericsError, match="NaN or infinity"):
        null_walk(lambda z: 1 / z[:, :2], x, distance=1e-2, direction=g)
    with pytest.raises(eqv.NumericsError, match="derivative"):
        null_walk(lambda z: z[:, :2].sqrt(), x, distance=1e-2, direction=g)


def test_points_at_which_f_is_not_finite_are_not_stepped_on():
    def half(z):
        return torch.where(z[:, :1] > 0.5, torch.nan, 0 * z[:, :1])

    walk = null_walk(half, torch.full((1, 3), 0.25), distance=1e-3, direction=torch.ones(1, 3), steps=20)
    assert float(walk.points[-1, 0, 0]) == pytest.approx(0.5, abs=0.02)
    assert bool(walk.distance.isfinite().all())
