"""The numerics probe: curves and radii against maps for which they are known, and claims on the shipped model."""

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
from equivengine_plugins.probes.numerics import Numerics, NumericsParams
from equivengine_plugins.probes.numerics.evaluation import random_units
from equivengine_plugins.probes.numerics.radius import crossing
from equivengine_plugins.probes.numerics.steps import best, measure_curve, minimum, slope

FEW = NumericsParams(directions=3, radius_directions=3, normal_directions=3, null_directions=3, steps=15, lengths=9)


class Map(nn.Module):
    """f(x) = g(A x, x), with A [n, m] drawn once."""

    def __init__(self, n, m, g=lambda y, x: y):
        super().__init__()
        self.A = nn.Parameter(torch.randn(n, m, generator=torch.Generator().manual_seed(n * m)) / m**0.5)
        self.g = g

    def forward(self, x):
        return self.g(x @ self.A.T, x)


def task_of(module, x, params, precision="fp32", seed=0):
    """A task on an encoder of vectors [m]."""
    x = torch.as_tensor(x, dtype=torch.float32)
    loaded = eqv.LoadedModel(module, preprocessing=lambda raw: raw, input_shape=tuple(x.shape))
    return ProbeTask(eqv.Encoder(loaded, "map"), [x], params, seed=seed, precision=precision)


def grey(m):
    return torch.rand(m, generator=torch.Generator().manual_seed(m)) / 2 + 0.25


def values(result, *names):
    return tuple(result.summary[name].value for name in names)


@pytest.fixture(scope="module")
def result(digits, images):
    sample = images[0]
    return Numerics().run(
        ProbeTask(digits, [digits.preprocess(sample.load())], NumericsParams(), 0, sample_digests=[sample.digest])
    )


def test_every_free_check_passes_on_digits(result):
    assert result.status == "ok"
    assert {"truncation_fp32", "roundoff_fp32", "truncation_fp64", "roundoff_fp64", "jvp", "jvp_fp32", "null"} == set(
        result.checks
    )
    failed = {name: check for name, check in result.checks.items() if not check.passed}
    assert not failed


def test_float64_differences_are_better_at_shorter_steps_and_jvps_need_none(result):
    step, step64, error, error64, jvp = values(result, "step_fp32", "step_fp64", "error_fp32", "error_fp64", "jvp_fp32")
    assert step64 < step / 100
    assert error64 < error / 1e4
    assert jvp < error / 10
    assert 1e-3 < values(result, "jvp_bf16")[0] < 0.1
    low, high = result.summary["step_fp64"].interval
    assert low <= step64 <= high < 10 * low


def test_the_encoder_bends_soonest_in_its_normal_space_and_latest_in_its_null_space(result):
    normal, random, null = values(result, "radius_normal", "radius_random", "radius_null")
    assert normal < random < null
    assert (result.arrays["radius_null_censored"].data == 0).all()
    assert result.arrays["null_response"].data[0].max() < 1e-3 * result.arrays["random_response"].data[0].min()


def test_curves_are_those_of_an_exponential(task):
    """For f = exp(A x) the central difference is exp(A x) sinh(h A d) / h."""
    params = NumericsParams(directions=4, h_min=1e-2, h_max=2, steps=7)
    given = task_of(Map(3, 8, lambda y, x: y.exp()), grey(8), params)
    operator = given.jacobian(given.samples[0], precision="fp64")
    d = random_units(given, "steps", 4, 8)
    exact = operator.jvp(d)
    steps = np.geomspace(1e-2, 2, 7)
    curve = measure_curve(given, operator, d, exact, exact, steps)
    A = given.encoder.module.A.double()
    slopes = d @ A.T
    f = (A @ operator.x).exp()
    for h, found in zip(steps, curve.error, strict=True):
        quotient = f * torch.sinh(h * slopes) / h
        gap = torch.linalg.vector_norm(quotient - f * slopes, dim=1) / torch.linalg.vector_norm(f * slopes, dim=1)
        assert np.allclose(found, gap.numpy(), rtol=1e-6, atol=1e-12)
    whole = Numerics().run(given)
    assert np.allclose(whole.arrays["error_fp64"].data, curve.error, rtol=1e-6)


@pytest.mark.parametrize(("precision", "eps"), [("fp32", 2.0**-23), ("fp64", 2.0**-52)])
def test_the_best_step_is_the_cube_root_of_epsilon_times_the_scale(precision, eps):
    module = Map(6, 8, lambda y, x: (3 * y).sin())  # bends over a length of about one
    found = Numerics().run(task_of(module, grey(8), NumericsParams(h_max=1.0)))
    step, error = values(found, f"step_{precision}", f"error_{precision}")
    assert eps ** (1 / 3) / 10 < step < eps ** (1 / 3) * 10
    assert eps ** (2 / 3) / 10 < error < eps ** (2 / 3) * 10
    assert found.checks[f"truncation_{precision}"].passed
    assert found.checks[f"roundoff_{precision}"].passed


@settings(max_examples=50, deadline=None)
@given(
    a=st.floats(1e-3, 1e3), b=st.floats(1e-16, 1e-7), outlier=st.integers(0, 36), factor=st.sampled_from([1e-6, 1, 1e6])
)
def test_the_minimum_of_a_u_is_found_whatever_one_point_says(a, b, outlier, factor):
    steps = np.geomspace(1e-8, 10, 37)
    truth = (b / (2 * a)) ** (1 / 3)
    errors = a * steps**2 + b / steps
    errors[outlier] *= factor
    inner = np.clip(truth, steps[2], steps[-3])
    assert inner / 2.2 < minimum(steps, errors) < inner * 2.2


@settings(max_examples=30, deadline=None)
@given(power=st.floats(-3, 3), outlier=st.integers(0, 8))
def test_a_slope_ignores_an_outlier(power, outlier):
    steps = np.geomspace(1e-4, 1, 9)
    errors = 3 * steps**power
    assert slope(steps, errors) == pytest.approx(power, abs=1e-9)
    errors[outlier] *= 10
    assert slope(steps, errors) == pytest.approx(power, abs=0.25)


def test_an_affine_encoder_is_linear_to_the_end_of_the_sweep():
    found = Numerics().run(task_of(Map(3, 20, lambda y, x: y + 1), grey(20), FEW))
    end = found.arrays["lengths"].data[-1]
    assert end == pytest.approx(20**0.5)  # the diagonal of the unit box
    for kind in ("random", "normal", "null"):
        assert values(found, f"radius_{kind}") == (end,)
        assert (found.arrays[f"radius_{kind}_censored"].data == 1).all()
    assert "their radius is a lower bound" in found.message
    assert found.status == "not_converged"  # differences have no best step: longer is better
    assert "smallest at h_max" in found.message


@pytest.mark.parametrize("curvature", [0.05, 0.7])
def test_the_radius_of_a_quadratic_map_is_exact(curvature):
    """f = A x + c/2 |x|^2 w with |w| = 1 is off by c/2 |d|^2 along any d."""
    m, n = 24, 4
    w = torch.ones(n) / n**0.5

    def bent(y, x):
        return y + curvature / 2 * x.square().sum(1, keepdim=True) * w.to(x)

    given = task_of(Map(n, m, bent), grey(m), FEW)
    found = Numerics().run(given)
    A, x = given.encoder.module.A.double(), given.samples[0].double()
    J = A + curvature * w[:, None].double() * x
    rms = float(torch.linalg.matrix_norm(J)) / m**0.5
    truth = 2 * FEW.level * rms / curvature
    assert values(found, "rms")[0] == pytest.approx(rms, rel=1e-12)
    for kind in ("random", "normal", "null"):
        assert np.allclose(found.arrays[f"radius_{kind}"].data, truth, rtol=1e-6), kind
        lengths = found.arrays["lengths"].data
        assert np.allclose(found.arrays[f"{kind}_error"].data, curvature / 2 * lengths[:, None] ** 2, rtol=1e-6)
    slopes = found.arrays["normal_slope"].data
    assert found.arrays["null_slope"].data.max() < 1e-14
    assert slopes.min() > 0
    assert slopes.max() <= float(torch.linalg.matrix_norm(J, 2)) * (1 + 1e-12)


def test_the_linear_approximation_ends_at_a_kink():
    """f = (A x, c relu(x_0 - x_0(0) - s)) is exactly linear up to the kink, at |d| = s / d_0."""
    m, slope_behind, distance = 10, 5.0, 0.02
    x = grey(m)

    def kinked(y, z):
        return torch.cat([y, slope_behind * torch.relu(z[:, :1] - float(x[0]) - distance)], dim=1)

    params = FEW.model_copy(update={"radius_directions": 12, "lengths": 101, "h_max": distance / 2})
    given = task_of(Map(3, m, kinked), x, params)
    found = Numerics().run(given)
    towards = random_units(given, "radius-random", 12, m)[:, 0].numpy()
    rms = values(found, "rms")[0]
    radii = found.arrays["radius_random"].data
    spacing = found.arrays["lengths"].data[1] / found.arrays["lengths"].data[0]
    # c (|d| d_0 - s) = level rms |d|
    truth = distance / np.maximum(towards - FEW.level * rms / slope_behind, 1e-9)
    truth = np.minimum(truth, found.arrays["lengths"].data[-1])
    assert ((radii >= truth / spacing) & (radii <= truth * spacing)).all()
    assert (found.arrays["radius_random_censored"].data[towards < 0] == 1).all()
    assert (radii[towards > 0] > distance / towards[towards > 0] / spacing).all()


def test_crossings_are_interpolated_and_censored():
    lengths = np.array([1.0, 10.0, 100.0])
    relative = np.array([[0.01, 0.2, 0.001, 0.05], [0.1, 0.5, 0.002, np.nan], [1.0, 0.9, 0.003, 0.01]])
    radii, ends = crossing(lengths, relative, 0.05)
    assert radii[0] == pytest.approx(10**0.69897, rel=1e-5)
    assert list(radii[1:]) == [1.0, 100.0, 1.0]
    assert list(ends) == [0, -1, 1, -1]
    radii, ends = crossing(lengths, relative[:, 3:], 0.06)
    assert list(radii) == [1.0]  # the next value is not a number: nothing is known beyond
    assert list(ends) == [0]


def test_a_sweep_that_begins_too_late_is_reported():
    params = FEW.model_copy(update={"length_min": 3.0, "length_max": 4.0})
    found = Numerics().run(task_of(Map(4, 24, lambda y, x: (9 * y).sin()), grey(24), params))
    assert found.status == "not_converged"
    assert "breaks before length_min along random" in found.message
    assert values(found, "radius_random") == (pytest.approx(3.0),)


def test_pixels_out_of_range_are_counted():
    found = Numerics().run(task_of(Map(3, 400), torch.full((400,), 0.5), FEW))
    outside = found.arrays["random_outside"].data
    # |d_i| > 0.5 for normal coordinates of standard deviation |d| / sqrt(m)
    lengths = found.arrays["lengths"].data
    expected = 1 - torch.erf(torch.tensor(0.5 * 20 / lengths / 2**0.5)).numpy()
    assert np.abs(outside.mean(axis=1) - expected).max() < 0.05
    assert outside[0].max() == 0


def test_rounding_that_swallows_a_step_is_no_success():
    """Around 1 float32 cannot move by 1e-9: a quotient of nothing is no measurement."""
    params = NumericsParams(directions=3, h_min=1e-9, h_max=1e-2, steps=8)
    given = task_of(Map(3, 8, lambda y, x: y.sin()), torch.ones(8), params)
    operator = given.jacobian(given.samples[0])
    d = random_units(given, "steps", 3, 8)
    own = operator.jvp(d).double()
    curve = measure_curve(given, operator, d, own, own, np.geomspace(1e-9, 1e-2, 8))
    assert np.isnan(curve.error[0]).all()
    assert np.isfinite(curve.error[-1]).all()
    assert best(curve, 0).step.value > 1e-5


def test_results_depend_on_the_seed_and_not_on_the_runs_precision(task):
    found = Numerics().run(task(FEW, 2))
    again, double, other = (
        Numerics().run(task(FEW, 2, **changed)) for changed in ({}, {"precision": "fp64"}, {"seed": 1})
    )
    for name in found.arrays:
        assert np.array_equal(found.arrays[name].data, again.arrays[name].data, equal_nan=True), name
        assert np.array_equal(found.arrays[name].data, double.arrays[name].data, equal_nan=True), name
    assert not np.array_equal(found.arrays["error_fp64"].data, other.arrays["error_fp64"].data)
    assert not np.array_equal(found.arrays["null_error"].data, other.arrays["null_error"].data)


def test_without_a_null_space_only_random_directions_are_measured():
    found = Numerics().run(task_of(Map(6, 4, lambda y, x: y.sin()), grey(4), FEW))
    assert "no null space" in found.message
    assert "radius_null" not in found.summary
    assert np.isfinite(values(found, "radius_random")[0])
    assert found.provenance["reference_response"] == "rms |J d| of random d"
    assert set(Numerics().figures(found.arrays)) == set(
        Numerics().figures(Numerics().run(task_of(Map(4, 6, lambda y, x: y.sin()), grey(6), FEW)).arrays)
    )


class Straight(torch.autograd.Function):
    """Rounds, and passes the gradient through: a model with it has no program whose products could be made cheaper."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.round()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient

    @staticmethod
    def jvp(ctx, tangent):
        return tangent.clone()


def test_tangents_that_a_model_does_not_offer_are_left_out_and_false_derivatives_are_seen():
    module = Map(3, 8, lambda y, x: y.sin() + Straight.apply(y))
    found = Numerics().run(task_of(module, grey(8), FEW.model_copy(update={"null_directions": 0})))
    assert "jvp_bf16" not in found.summary
    assert found.provenance["jvp_precisions"] == ["fp32"]
    assert "radius_null" not in found.summary
    assert not found.checks["jvp"].passed


def test_an_input_at_which_nothing_moves_is_refused():
    given = task_of(Map(3, 8, lambda y, x: (y.square() - 1e-6).relu()), torch.zeros(8), FEW)
    with pytest.raises(eqv.NumericsError, match="exactly zero"):
        Numerics().run(given)


def test_figures_are_drawn_from_arrays_and_leave_nothing_open(result):
    from matplotlib import pyplot as plt

    figures = Numerics().figures(result.arrays)
    assert len(figures) == 2
    for figure in figures.values():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        assert buffer.getbuffer()[:8] == b"\x89PNG\r\n\x1a\n"
        (axes,) = figure.axes
        assert len(axes.get_legend().get_texts()) >= 3
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "bad",
    [
        {"h_min": 0},
        {"h_min": 1.0, "h_max": 0.5},
        {"length_min": 2.0, "length_max": 1.0},
        {"steps": 4},
        {"lengths": 2},
        {"level": 1},
        {"directions": 0},
        {"null_directions": -1},
        {"h_max": float("nan")},
        {"unknown": 1},
    ],
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValidationError):
        NumericsParams(**bad)


def test_a_shortest_length_beyond_the_default_longest_is_refused():
    with pytest.raises(eqv.UsageError, match="length_min must be shorter"):
        Numerics().run(task_of(Map(3, 8), grey(8), FEW.model_copy(update={"length_min": 100.0})))
