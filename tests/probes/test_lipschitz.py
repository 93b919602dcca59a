"""The lipschitz probe: suprema against maps for which they are known, each part against another way, and digits."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine_plugins.probes.lipschitz import Lipschitz, LipschitzParams
from equivengine_plugins.probes.lipschitz.ascent import gradient
from equivengine_plugins.probes.lipschitz.ball import Ball
from equivengine_plugins.probes.lipschitz.secants import largest_secant
from equivengine_plugins.probes.lipschitz.triplet import KEPT, top_triplets

NORMS = ("l2", "linf")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Map(nn.Module):
    """f(x) = g(P x, x), with P [n, m] drawn once."""

    def __init__(self, n, m, g=lambda y, x: y):
        super().__init__()
        self.P = nn.Parameter(drawn(n, m, seed=n * m) / m**0.5)
        self.g = g

    def forward(self, x):
        return self.g(x @ self.P.T, x)


def task_of(module, x, params=None, precision="fp32", seed=0):
    """A task on an encoder of vectors [m]."""
    x = torch.as_tensor(x, dtype=torch.float32)
    loaded = eqv.LoadedModel(module, preprocessing=lambda raw: raw, input_shape=tuple(x.shape))
    return ProbeTask(eqv.Encoder(loaded, "map"), [x], params or LipschitzParams(), seed=seed, precision=precision)


def smooth(m=30, n=6, precision="fp64"):
    """A task on a smooth map whose Jacobian turns as x moves, with the map itself in float64."""
    Q = drawn(n, n, seed=1).double()
    given = task_of(Map(n, m, lambda y, x: torch.tanh(4 * y) @ Q.to(y)), torch.rand(m), precision=precision)
    return given, given.encoder.at_precision("fp64")


def dense(encoder, x):
    """J at x [*input_shape], float64, by torch.func."""
    double = encoder.at_precision("fp64")
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.func.jacrev(lambda z: double(z[None])[0])(x.double()).flatten(1)


@pytest.fixture(scope="module")
def result(digits, images):
    sample = images[0]
    return Lipschitz().run(
        ProbeTask(digits, [digits.preprocess(sample.load())], LipschitzParams(), 0, sample_digests=[sample.digest])
    )


# -- the shipped model ------------------------------------------------------------------------------------------------


def test_on_digits_every_free_check_passes(result):
    assert result.status == "ok"
    names = ("secant", "no_faster", "inside", "path", "residual")
    assert set(result.checks) == {"residual", *(f"{name}_{norm}" for name in names for norm in NORMS)}
    failed = {name: check for name, check in result.checks.items() if not check.passed}
    assert not failed


def test_on_digits_s_1_is_that_of_the_dense_jacobian_here_and_at_the_maximiser(result, digits, images):
    x = digits.preprocess(images[0].load())
    truth = float(torch.linalg.matrix_norm(dense(digits, x), 2))
    low, high = result.summary["s_1"].interval
    assert low - 1e-12 <= truth <= high + 1e-12
    assert high - low < 1e-8 * truth
    for norm in NORMS:
        z = torch.from_numpy(result.arrays[f"maximiser_{norm}"].data).reshape(x.shape)
        found = float(torch.linalg.matrix_norm(dense(digits, z), 2))
        assert result.summary[f"sup_{norm}"].value == pytest.approx(found, rel=1e-6)
        assert result.summary[f"ratio_{norm}"].value == pytest.approx(found / truth, rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_on_digits_the_ball_holds_much_faster_points_than_random_ones(result, norm):
    sup, ratio, random = (result.summary[f"{name}_{norm}"].value for name in ("sup", "ratio", "random"))
    assert ratio > 2
    assert sup > 2 * random


@pytest.mark.parametrize("norm", NORMS)
def test_paths_never_fall_and_stay_within_the_ball(result, norm):
    radius = getattr(LipschitzParams(), f"radius_{norm}")
    path, distance = (result.arrays[f"{name}_{norm}"].data for name in ("path", "distance"))
    assert path.shape == distance.shape == (21, 3)
    assert (np.diff(path, axis=0) >= 0).all()
    assert distance.max() <= radius + 6e-8  # points are float32
    assert distance[0, 0] == 0
    assert path[0, 0] == pytest.approx(result.summary["s_1"].value, rel=1e-5)
    assert result.summary[f"secant_{norm}"].value <= result.summary[f"sup_{norm}"].value * (1 + 1e-3)
    assert result.summary[f"margin_{norm}"].value >= 0


def test_one_step_is_not_enough_and_says_so(task):
    found = Lipschitz().run(task(LipschitzParams(steps=1, starts=1), 0))
    assert found.status == "not_converged"
    assert "L2 ball" in found.message
    assert "raise steps" in found.message
    assert "random_l2" not in found.summary


def test_the_same_seed_gives_the_same_result(task):
    few = LipschitzParams(steps=2)
    a, b, c = (Lipschitz().run(task(few, 3, seed=seed)) for seed in (0, 0, 1))
    for name in a.arrays:
        assert np.array_equal(a.arrays[name].data, b.arrays[name].data), name
    assert not np.array_equal(a.arrays["path_l2"].data[:, 1], c.arrays["path_l2"].data[:, 1])


# -- known suprema ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_over_a_linear_encoder_the_constant_is_s_1_everywhere(precision):
    given = task_of(Map(4, 30), torch.rand(30), precision=precision)
    found = Lipschitz().run(given)
    truth = float(torch.linalg.matrix_norm(given.encoder.module.P.double(), 2))
    assert found.status == "ok"
    assert found.summary["s_1"].value == pytest.approx(truth, rel=1e-12)
    for norm in NORMS:
        assert found.summary[f"sup_{norm}"].value == pytest.approx(truth, rel=1e-12)
        assert found.summary[f"secant_{norm}"].value == pytest.approx(truth, rel=1e-6)
        assert found.summary[f"path_secant_{norm}"].value <= truth * (1 + 1e-9)
        assert found.summary[f"rise_{norm}"].value < 1e-5
        assert found.checks[f"no_faster_{norm}"].passed


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("box", [False, True])
def test_over_squares_the_supremum_lies_on_the_surface(precision, box):
    """f_i = a_i x_i^2 / 2 has J = diag(a_i x_i): over a ball of radius r, L2 or L-infinity, sup = max a_i (x_i + r)."""
    m, n = 12, 5
    a = torch.tensor([1.0, 4.0, 2.0, 3.0, 1.0])
    x = torch.full((m,), 0.5)
    params = LipschitzParams(radius_l2=0.7, radius_linf=0.3, box=box, steps=60)
    module = Map(n, m, lambda y, z: 0 * y + a.to(z) / 2 * z[:, :n] ** 2)
    found = Lipschitz().run(task_of(module, x, params, precision))
    reach = {"l2": 1.0 if box else 1.2, "linf": 0.8}  # x_1 = 0.5 + 0.7 leaves the box
    assert found.status == "ok"
    assert found.summary["s_1"].value == pytest.approx(2.0, rel=1e-12)
    for norm in NORMS:
        assert found.summary[f"sup_{norm}"].value == pytest.approx(4 * reach[norm], rel=2e-6)
        assert found.summary[f"secant_{norm}"].value == pytest.approx(4 * reach[norm], rel=1e-5)
        assert found.summary[f"margin_{norm}"].value >= -1e-15
        assert found.checks[f"secant_{norm}"].passed
        assert found.summary[f"outside_{norm}"].value == pytest.approx(1 / m if norm == "l2" and not box else 0)
    assert found.summary["distance_l2"].value == pytest.approx(0.5 if box else 0.7, abs=0.21 if box else 1e-5)


def test_over_a_saturating_net_the_supremum_lies_within():
    """f = Q tanh(P (x - c)) is fastest where P (x - c) = 0, if that lies in the ball: J = Q P."""
    m, n, q = 40, 3, 5
    x = torch.rand(m)
    module = Map(n, m)
    away = drawn(m, seed=3)
    Q, c = drawn(n, q, seed=2), x + 0.4 * away / away.norm()
    module.g = lambda y, z: torch.tanh((z - c.to(z)) @ module.P.to(z).T) @ Q.to(z)
    found = Lipschitz().run(task_of(module, x, LipschitzParams(radius_l2=1.0, radius_linf=0.5, steps=60)))
    truth = float(torch.linalg.matrix_norm((Q.T @ module.P).double(), 2))
    assert found.summary["s_1"].value < 0.9999 * truth
    for norm in NORMS:
        sup = found.summary[f"sup_{norm}"].value
        assert truth * (1 - 1e-5) <= sup <= truth * (1 + 1e-6)
        assert found.checks[f"no_faster_{norm}"].passed


def test_behind_a_kink_random_starts_find_what_no_gradient_shows():
    """f = P x + c relu(w (x - x0)): s_1 is constant on either side, so that only a start beyond the kink sees it."""
    m, n = 20, 4
    x, w, c = torch.rand(m), drawn(m, seed=5), drawn(n, seed=6)
    module = Map(n, m, lambda y, z: y + torch.relu((z - x.to(z)) @ w.to(z) - 1e-3)[:, None] * c.to(z))
    params = LipschitzParams(starts=10, steps=3)
    found = Lipschitz().run(task_of(module, x, params))
    P = module.P.double()
    here, beyond = (float(torch.linalg.matrix_norm(J, 2)) for J in (P, P + torch.outer(c.double(), w.double())))
    assert beyond > 1.1 * here
    assert found.summary["s_1"].value == pytest.approx(here, rel=1e-9)
    for norm in NORMS:
        assert found.summary[f"sup_{norm}"].value == pytest.approx(beyond, rel=1e-9)
        assert found.summary[f"random_{norm}"].value == pytest.approx(beyond, rel=1e-5)
        assert found.summary[f"secant_{norm}"].value == pytest.approx(beyond, rel=1e-6)
        ends = found.arrays[f"path_{norm}"].data[0]
        assert set(np.round(ends, 3)) == {round(here, 3), round(beyond, 3)}


# -- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_triplets_are_those_of_the_dense_jacobians(precision):
    given, _ = smooth(precision=precision)
    z = torch.rand(3, 30, dtype=torch.float64)
    operator = given.jacobian(z)
    found = top_triplets(operator, drawn(4, 30).double().expand(3, 4, 30), 1e-10 if precision == "fp64" else 1e-5)
    for k in range(3):
        J = dense(given.encoder, operator.x[k])
        U, S, Vh = torch.linalg.svd(J, full_matrices=False)
        close = 1e-9 if precision == "fp64" else 3e-6
        assert float(found.s[k]) == pytest.approx(float(S[0]), rel=close)
        assert abs(float(found.u[k] @ U[:, 0])) == pytest.approx(1, abs=close)
        assert abs(float(found.v[k, 0] @ Vh[0])) == pytest.approx(1, abs=close)
        assert torch.allclose(J @ found.v[k, 0], found.s[k] * found.u[k], atol=10 * close)
        residual = torch.linalg.vector_norm(J.T @ found.u[k] - found.s[k] * found.v[k, 0])
        assert float(found.residual[k]) == pytest.approx(float(residual), abs=10 * close)


def test_a_warm_start_saves_products_but_only_random_vectors_are_sure_to_find_the_top():
    given, _ = smooth(m=60, n=20)
    z = torch.rand(1, 60, dtype=torch.float64)
    operator = given.jacobian(z)
    cold = top_triplets(operator, drawn(1, 4, 60).double(), 1e-6)
    warm = top_triplets(given.jacobian(z + 1e-4 * drawn(1, 60)), cold.v, 1e-6)
    assert warm.products < cold.products
    J = dense(given.encoder, operator.x[0])
    S = torch.linalg.svdvals(J)
    assert float(cold.s[0]) == pytest.approx(float(S[0]), rel=1e-9)
    below = torch.linalg.svd(J, full_matrices=False).Vh[None, 1 : 1 + KEPT]
    missed = top_triplets(operator, below, 1e-6)
    assert float(missed.s[0]) == pytest.approx(float(S[1]), rel=1e-9)  # a lower bound with a residual of zero
    assert float(missed.residual[0]) < 1e-9


@pytest.mark.parametrize("n", [1, 2, 7])
def test_triplets_of_few_rows_or_of_rank_one(n):
    given = task_of(Map(n, 7), torch.rand(7), precision="fp64")
    found = top_triplets(given.jacobian(torch.rand(2, 7)), drawn(2, 1, 7).double(), 1e-12)
    truth = float(torch.linalg.matrix_norm(given.encoder.module.P.double(), 2))
    assert found.s.tolist() == pytest.approx([truth, truth], rel=1e-12)
    with pytest.raises(eqv.UsageError, match="start"):
        top_triplets(given.jacobian(torch.rand(2, 7)), drawn(1, 7), 1e-12)


@pytest.mark.parametrize(("precision", "close"), [("fp64", 1e-8), ("fp32", 3e-3)])
def test_the_gradient_of_s_1_is_that_of_double_backward(precision, close):
    given, double = smooth(precision=precision)
    z = torch.rand(2, 30, dtype=torch.float32).double()
    triplets = top_triplets(given.jacobian(z), drawn(2, 4, 30).double(), 1e-10)
    found = gradient(given, z, triplets.u, triplets.v[:, 0])
    for k in range(2):
        point = z[k].clone().requires_grad_(True)
        J = torch.func.jacrev(lambda p: double(p[None])[0])(point)
        (truth,) = torch.autograd.grad(torch.linalg.svdvals(J)[0], point)
        assert torch.linalg.vector_norm(found[k] - truth) <= close * torch.linalg.vector_norm(truth)


balls = st.builds(
    lambda norm, radius, box, x: Ball(torch.tensor(x, dtype=torch.float64), radius, norm, (0.0, 1.0) if box else None),
    st.sampled_from(NORMS),
    st.floats(1e-3, 3),
    st.booleans(),
    st.lists(st.sampled_from([0.0, 0.2, 0.9, 1.0]), min_size=2, max_size=6),
)


@settings(max_examples=60, deadline=None)
@given(ball=balls, seed=st.integers(0, 1000))
def test_a_projection_is_the_nearest_point_of_the_set(ball, seed):
    m = len(ball.centre)
    points = 3 * drawn(8, m, seed=seed).double()
    nearest = ball.project(points)
    assert ball.margin(nearest) >= -1e-12
    assert torch.allclose(ball.project(nearest), nearest, atol=1e-12)
    members = ball.random(seed, 8)
    assert ball.margin(members) >= -1e-12
    # The projection onto a convex set: no member lies on the far side of the tangent plane.
    sides = ((points - nearest)[:, None] * (members - nearest[:, None])).sum(-1)
    assert float(sides.max()) <= 1e-9


@settings(max_examples=60, deadline=None)
@given(ball=balls, seed=st.integers(0, 1000), share=st.sampled_from([1e-6, 1e-3, 1e-2]))
def test_both_ends_of_a_secant_lie_in_the_set_and_next_to_the_point(ball, seed, share):
    m = len(ball.centre)
    point = ball.project(3 * drawn(1, m, seed=seed).double())[0]
    v = drawn(m, seed=seed + 1).double()
    v /= v.norm()
    h = share * min(ball.radius, 1.0) / 10
    centre = ball.inner(point, v, h)
    assert ball.margin(torch.stack([centre + h * v, centre - h * v])) >= -1e-13
    assert float((centre - point).norm()) <= 40 * m * h * max(1.0, float((point - ball.centre).norm()) / ball.radius)


def test_random_points_fill_the_ball():
    centre = torch.zeros(3, dtype=torch.float64)
    for norm, volume in (("l2", 0.5**3), ("linf", 0.5**3)):
        ball = Ball(centre, 2.0, norm)
        points = ball.random(7, 4000)
        assert float((ball.distance(points) < 1.0).double().mean()) == pytest.approx(volume, abs=0.02)
        assert float(points.mean(0).abs().max()) < 0.08
        assert torch.equal(points[:5], ball.random(7, 5))


def test_the_fastest_pair_is_found():
    given = task_of(Map(2, 6, lambda y, x: 0 * y + x[:, :2].square()), torch.zeros(6))
    points = torch.tensor([[0.0] * 6, [0.5] + [0.0] * 5, [1.0] + [0.0] * 5, [0.0, 1.0] + [0.0] * 4]).double()
    value, roundoff = largest_secant(given, points)
    assert value == pytest.approx(1.5, rel=1e-12)  # (1 - 0.25) / 0.5
    assert 0 < roundoff < 1e-14
    assert largest_secant(given, points[:1]) == (0.0, 0.0)


# -- what can go wrong ------------------------------------------------------------------------------------------------


def test_a_ball_of_radius_zero_is_left_out():
    found = Lipschitz().run(task_of(Map(3, 8), torch.rand(8), LipschitzParams(radius_linf=0)))
    assert "sup_l2" in found.summary
    assert not [name for name in (*found.summary, *found.arrays, *found.checks) if name.endswith("linf")]
    assert len(Lipschitz().figures(found.arrays)) == 1


def test_an_input_outside_the_box_is_refused_only_with_the_box():
    x = torch.full((8,), 1.5)
    Lipschitz().run(task_of(Map(3, 8), x, LipschitzParams(steps=1)))
    with pytest.raises(eqv.UsageError, match="outside the encoder's input range"):
        Lipschitz().run(task_of(Map(3, 8), x, LipschitzParams(steps=1, box=True)))


def test_an_input_at_which_nothing_moves_is_refused():
    given = task_of(Map(3, 8, lambda y, x: (y.square() - 1e-6).relu()), torch.zeros(8))
    with pytest.raises(eqv.NumericsError, match="exactly zero"):
        Lipschitz().run(given)


@pytest.mark.parametrize(
    "bad",
    [
        {"radius_l2": -1},
        {"radius_linf": float("nan")},
        {"starts": 0},
        {"steps": 0},
        {"tolerance": 0},
        {"tolerance": 1},
        {"box": "perhaps"},
        {"unknown": 1},
    ],
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValidationError):
        LipschitzParams(**bad)


def test_figures_are_drawn_from_arrays_and_leave_nothing_open(result):
    from matplotlib import pyplot as plt

    figures = Lipschitz().figures(result.arrays)
    assert len(figures) == 2
    for figure in figures.values():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        assert buffer.getbuffer()[:8] == b"\x89PNG\r\n\x1a\n"
        (axes,) = figure.axes
        assert len(axes.lines) == 5  # three starts, what two points show, and s_1 at x
        shown, at_x = (line.get_ydata()[0] for line in axes.lines[3:])
        assert at_x < shown < 1.001 * max(line.get_ydata().max() for line in axes.lines[:3])
        assert "every point is a lower bound" in figure.get_label()
    assert plt.get_fignums() == []
