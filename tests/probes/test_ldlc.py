"""The ldlc probe: its claims on the shipped model, and every estimator against something computed another way."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

import equivengine as eqv
from equivengine_plugins.probes.ldlc import Ldlc, LdlcParams
from equivengine_plugins.probes.ldlc.along import measure_along, random_directions

SMALL = LdlcParams(directions=40, null_directions=40, gradient_steps=30)


@pytest.fixture(scope="module")
def result(digits, images):
    from equivengine.contracts.probe import ProbeTask

    samples = [images[0], images[8]]
    return Ldlc().run(
        ProbeTask(
            digits,
            [digits.preprocess(s.load()) for s in samples],
            SMALL,
            seed=0,
            sample_digests=[s.digest for s in samples],
        )
    )


def test_null_directions_are_null_and_curvature_is_what_is_left(result):
    summary = result.summary
    assert summary["null_at_zero_over_random"].value <= 1e-6
    assert summary["random_over_null"].value >= 1000
    assert summary["null_leakage"].value < 1e-6 * summary["null"].value
    assert summary["null_curvature"].value == pytest.approx(summary["null"].value, rel=0.01)
    assert summary["noise_null_tangent"].value < summary["null"].value


def test_every_free_check_passes(result):
    assert set(result.checks) == {
        "random_rms",
        "singular_directions",
        "null_at_zero",
        "null_above_noise",
        "no_faster_than_s_1",
    }
    failed = {name: check for name, check in result.checks.items() if not check.passed}
    assert not failed


def test_along_right_singular_vectors_the_tangent_is_the_singular_value(result):
    s = result.arrays["singular_values"].data
    t = result.arrays["singular_at_zero"].data
    assert len(t) == 96
    assert np.all(np.abs(t - s) <= 1e-5 * s + 1e-6 * s[0])


def test_gradient_directions_beat_random_ones(result):
    assert result.summary["gradient_first_over_random"].value > 2
    ceiling = result.summary["s_1"].value / result.summary["expected_random"].value
    assert result.summary["gradient_first_over_random"].value <= ceiling * 1.2


def test_descent_lowers_the_loss_at_every_step(result):
    loss = result.arrays["descent_loss"].data
    assert len(loss) == 30
    assert np.all(np.diff(loss) < 0)
    assert result.arrays["descent_pixel_difference"].data[0] == 0
    assert np.all(np.diff(result.arrays["descent_learning_rate"].data) <= 0)


def test_secant_and_tangent_agree_in_float64(digits, task):
    given = task(SMALL, 0, 8, precision="fp64")
    operator = given.jacobian(given.samples[0])
    d = random_directions(given, operator, 0, 20, None)
    found = measure_along(operator, (0.0, 1.0), d, None, SMALL)
    assert np.allclose(found.secant, found.tangent, rtol=1e-3)
    assert np.all(found.tangent >= found.at_zero)


def test_the_page_names_all_that_a_result_holds(result):
    page = (Path(__file__).parents[2] / "docs" / "ldlc.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", page.partition("## Names")[2]))
    for name in [*named]:
        if name.startswith("KIND_"):
            named |= {name.replace("KIND", kind) for kind in ("random", "null", "singular", "gradient")}
    assert {*result.summary, *result.arrays, *result.checks} <= named


class Kink(nn.Module):
    """f(x) = (g(u), 1e-3 v) with u, v two coordinates and g'(u) a narrow peak: |J(x + a d) d| is known exactly."""

    def forward(self, x):
        flat = x.flatten(1)
        u = flat[:, :1] - 0.5
        return torch.cat([torch.tanh(u * 2000) / 100, 1e-3 * flat[:, 1:2]], dim=1)


@pytest.fixture
def kink():
    plain = eqv.Preprocessing(size=(32, 32), mode="L", resize="squash", mean=(0.0,), std=(1.0,))
    return eqv.Encoder(eqv.LoadedModel(Kink(), plain), "kink")


def test_a_peak_between_grid_points_is_found_by_the_secant_and_refined(kink):
    x = torch.full((1, 32, 32), 0.5, dtype=torch.float64)
    x[0, 0, 0] += 2.5e-4  # the peak, of slope 20, lies in the middle between the grid points -5e-4 and 0
    operator = eqv.JacobianOperator(kink, x, precision="fp64")
    d = torch.zeros(1, 1024, dtype=torch.float64)
    d[0, 0] = 1
    found = measure_along(operator, (0.0, 1.0), d, None, LdlcParams(eps=1e-3, grid=5))
    nodes = 20 / np.cosh(2000 * (2.5e-4 + np.array([-1e-3, -5e-4, 0, 5e-4, 1e-3]))) ** 2
    assert found.at_zero[0] == pytest.approx(nodes[2], rel=1e-9)
    assert found.secant[0] > nodes.max()
    assert found.tangent[0] == pytest.approx(20, rel=1e-9)


def test_ldlc_grows_with_eps(task):
    null_alone = SMALL.model_copy(update={"gradient_steps": 0, "singular_directions": 0, "directions": 0})
    results = [
        Ldlc().run(task(null_alone.model_copy(update={"eps": eps}), 0, 8)).summary["null"].value
        for eps in (1e-4, 1e-3, 1e-2)
    ]
    assert results[0] < results[1] < results[2]
    assert results[1] / results[0] == pytest.approx(10, rel=0.1)  # curvature is linear in eps


def test_directions_depend_on_neither_chunk_nor_precision(task):
    given = task(SMALL, 0, 8)
    operator = given.jacobian(given.samples[0])
    whole = random_directions(given, operator, 0, 6, None)
    parts = [random_directions(given, operator, 0, 2, None), random_directions(given, operator, 2, 4, None)]
    assert torch.equal(whole, torch.cat(parts))
    double = task(SMALL, 0, 8, precision="fp64")
    assert torch.equal(whole, random_directions(double, double.jacobian(double.samples[0]), 0, 6, None))
    other = task(SMALL, 1, 8)
    assert not torch.equal(whole, random_directions(other, operator, 0, 6, None))


def test_the_same_seed_gives_the_same_result(task):
    few = LdlcParams(directions=5, null_directions=5, singular_directions=4, gradient_steps=5)
    a, b = Ldlc().run(task(few, 2, 3)), Ldlc().run(task(few, 2, 3))
    c = Ldlc().run(task(few, 2, 3, seed=1))
    for name in a.arrays:
        assert np.array_equal(a.arrays[name].data, b.arrays[name].data), name
    assert not np.array_equal(a.arrays["random_tangent"].data, c.arrays["random_tangent"].data)


def test_kinds_can_be_left_out(task):
    none = LdlcParams(directions=0, null_directions=0, singular_directions=0, gradient_steps=0)
    found = Ldlc().run(task(none, 0, 8))
    assert np.isnan(found.summary["random"].value)
    assert found.summary["random"].n == 0
    assert found.checks == {}
    assert found.summary["s_1"].value > 0


def test_the_same_image_as_target_leaves_nothing_to_descend(task):
    few = SMALL.model_copy(update={"directions": 2, "null_directions": 2, "singular_directions": 1})
    found = Ldlc().run(task(few, 4, 4))
    assert found.arrays["gradient_tangent"].data.shape == (0,)
    assert "stopped after 0 of 30" in found.message


def test_clamped_descent_stays_in_the_box(task):
    from equivengine_plugins.probes.ldlc.descent import descend

    params = SMALL.model_copy(update={"clamp": True, "learning_rate": 1e-2})
    descent = descend(task(params, 0, 8), params, 10.0)
    assert descent.points.min() >= 0
    assert descent.points.max() <= 1


def test_a_grid_below_the_roundoff_of_pixels_is_reported(task):
    params = LdlcParams(directions=3, null_directions=0, singular_directions=0, gradient_steps=0, eps=1e-9)
    found = Ldlc().run(task(params, 0, 8))
    assert found.status == "not_converged"
    assert "random directions" in found.message
    assert np.isfinite(found.arrays["random_secant"].data).all()
    assert Ldlc().run(task(params, 0, 8, precision="fp64")).status == "ok"


def test_an_encoder_without_null_space_is_refused(task):
    class Wide(nn.Module):
        def forward(self, x):
            flat = x.flatten(1)
            return torch.cat([flat, flat**2], dim=1)

    plain = eqv.Preprocessing(size=(32, 32), mode="L", resize="squash", mean=(0.0,), std=(1.0,))
    encoder = eqv.Encoder(eqv.LoadedModel(Wide(), plain), "wide")
    with pytest.raises(eqv.UsageError, match="no null space"):
        Ldlc().run(task(SMALL, 0, 8, encoder=encoder))


@pytest.mark.parametrize(
    "bad",
    [{"grid": 4}, {"grid": 1}, {"eps": 0}, {"eps": float("nan")}, {"directions": -1}, {"unknown": 1}, {"grid": "x"}],
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValidationError):
        LdlcParams(**bad)
