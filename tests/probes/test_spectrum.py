"""The spectrum probe against maps whose Jacobian is known, and a dense float64 Jacobian that shares no code with it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from spectrum_cases import linear, vector_task
from torch import nn

import equivengine as eqv
from equivengine_plugins.probes.spectrum import Spectrum, SpectrumParams
from equivengine_plugins.probes.spectrum.measure import measure

WHOLE_ONLY = {"s_median", "effective_rank", "rank_90", "null_dim", "null_share"}


def dense_float64(encoder, x):
    double = encoder.at_precision("fp64")
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.func.jacrev(lambda z: double(z[None])[0])(x.double()).flatten(1)


# -- the whole spectrum -----------------------------------------------------------------------------------------------


def test_singular_values_are_those_of_the_float64_jacobian(digits, task):
    given = task(SpectrumParams(vectors=3), 0)
    found = Spectrum().run(given)
    J = dense_float64(digits, given.samples[0])
    truth = torch.linalg.svdvals(J).numpy()
    values, error = (found.arrays[name].data for name in ("singular_values", "error"))
    noise = found.summary["noise"].value
    assert found.status == "ok"
    assert found.message == ""
    assert 0 < noise < 1e-5 * truth[0]
    assert np.abs(values - truth).max() <= 4 * noise  # the noise is itself an estimate from 4 vectors
    assert (np.abs(values - truth) <= error).all()
    assert (found.arrays["lower"].data <= truth + 1e-12).all()
    assert found.summary["s_1"].interval[0] <= truth[0] <= found.summary["s_1"].interval[1]
    assert found.summary["frobenius"].value == pytest.approx(float(torch.linalg.matrix_norm(J)), rel=1e-6)
    assert set(found.checks) == {"frobenius", "adjoint"}
    assert all(check.passed for check in found.checks.values())
    assert set(found.summary) >= WHOLE_ONLY
    vectors = found.arrays["right_vectors"].data
    assert vectors.dtype == np.float32
    V = torch.linalg.svd(J, full_matrices=False).Vh[:3].numpy()
    assert np.abs(np.abs((vectors * V).sum(1)) - 1).max() < 1e-4
    assert found.provenance["method"] == "exact"
    assert found.provenance["products"] >= 96


def test_the_jacobian_is_written_out_once(task, monkeypatch):
    made = []
    product = eqv.JacobianOperator.vjp
    monkeypatch.setattr(eqv.JacobianOperator, "vjp", lambda self, u: made.append(len(u)) or product(self, u))
    monkeypatch.setattr(eqv.JacobianOperator, "dense", None)
    Spectrum().run(task(SpectrumParams(), 0))
    assert 96 <= sum(made) <= 96 + 2 * 4 + 4


def test_double_precision_resolves_the_whole_spectrum(digits, task):
    given = task(SpectrumParams(), 1, precision="fp64")
    found = Spectrum().run(given)
    truth = torch.linalg.svdvals(dense_float64(digits, given.samples[0])).numpy()
    assert np.abs(found.arrays["singular_values"].data - truth).max() <= 1e-12 * truth[0]
    # The final LayerNorm fixes the mean of its output exactly, and its length but for eps: n - 1 directions are left
    # in float64, the last of them so small that float32 sees n - 2.
    assert found.summary["rank"].value == 95
    assert Spectrum().run(task(SpectrumParams(), 1)).summary["rank"].value == 94
    assert found.summary["null_dim"].value == 1024 - found.summary["rank"].value
    assert "noise" not in found.summary  # there is nothing finer to hold float64 against


def test_the_threshold_is_relative_to_the_top(task):
    loose = Spectrum().run(task(SpectrumParams(threshold=0.5), 0))
    values = loose.arrays["singular_values"].data
    assert loose.summary["rank"].value == (values > 0.5 * values[0]).sum()


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_ranks_of_a_known_linear_encoder(precision):
    found = Spectrum().run(vector_task(linear([2, 2, 1, 0], 50), torch.zeros(1, 50), SpectrumParams(), precision))
    assert np.allclose(found.arrays["singular_values"].data, [2, 2, 1, 0], atol=1e-6)
    assert found.summary["rank"].value == 3
    assert found.summary["stable_rank"].value == pytest.approx(9 / 4)
    p = np.array([0.4, 0.4, 0.2])
    assert found.summary["effective_rank"].value == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), rel=1e-5)
    assert found.summary["rank_90"].value == 3
    assert found.summary["null_dim"].value == 47


def test_an_embedding_longer_than_its_input_has_a_spectrum_too():
    given = vector_task(linear([3, 2, 1], 3, n=20), torch.zeros(1, 3), SpectrumParams(vectors=2), "fp32")
    found = Spectrum().run(given)
    assert np.allclose(found.arrays["singular_values"].data, [3, 2, 1], atol=1e-6)
    assert found.summary["null_dim"].value == 0
    assert found.arrays["right_vectors"].data.shape == (2, 3)
    assert found.summary["noise"].value < 1e-5
    assert all(check.passed for check in found.checks.values())


def test_normalised_outputs_are_checked_to_be_tangent(task):
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 1024, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):
            return nn.functional.normalize(x.flatten(1) @ self.w.T, dim=1)

    plain = eqv.Preprocessing(size=(32, 32), mode="L", resize="squash", mean=(0.0,), std=(1.0,))
    encoder = eqv.Encoder(eqv.LoadedModel(Normalised(), plain, normalized_output=True), "normalised")
    found = Spectrum().run(task(SpectrumParams(), 0, encoder=encoder))
    assert found.checks["tangency"].passed
    assert found.summary["rank"].value == 5  # f^T J = 0 takes one


@pytest.mark.parametrize("settings", [{}, {"rank": 2}, {"rank": 2, "method": "randomized"}, {"tol": 0.1}])
def test_a_jacobian_that_is_zero_is_an_error_with_advice(settings):
    class Squares(nn.Module):
        def forward(self, x):
            return x[:, :12] ** 2

    given = vector_task(Squares(), torch.zeros(1, 30), SpectrumParams(**settings))
    with pytest.raises(eqv.NumericsError, match="exactly zero"):
        Spectrum().run(given)


# -- its leading part -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"mixed": True}, {"method": "exact"}])
def test_leading_values_come_with_bounds_and_without_what_only_the_whole_tells(digits, task, settings):
    given = task(SpectrumParams(rank=6, vectors=9, **settings), 2)
    found = Spectrum().run(given)
    J = dense_float64(digits, given.samples[0])
    truth = torch.linalg.svdvals(J).numpy()
    s, lower, error, residual = (found.arrays[name].data for name in ("singular_values", "lower", "error", "residual"))
    assert found.status == "ok"
    assert s.shape == lower.shape == error.shape == residual.shape == (6,)
    assert (lower <= truth[:6]).all()
    assert (np.abs(s - truth[:6]) <= error).all()
    assert found.summary["value_error"].value <= 1e-3 + 1e-5
    assert not WHOLE_ONLY & set(found.summary)
    assert not found.nan_scalars()
    assert found.summary["s_last"].value == s[-1]
    assert found.summary["found"].value == 6
    assert found.arrays["right_vectors"].data.shape == (6, 1024)
    low, high = found.summary["frobenius"].interval or 2 * (found.summary["frobenius"].value * (1 + 1e-7),)
    assert low * (1 - 1e-6) <= float(torch.linalg.matrix_norm(J)) <= high
    assert all(check.passed for check in found.checks.values())
    assert found.provenance["method"] in found.message
    assert found.provenance["reason"]
    assert found.summary["products"].value == found.provenance["products"]
    if settings.get("mixed"):
        assert found.provenance["products_by_precision"]["bf16"] > 0
    elif not settings:
        assert found.provenance["method"] == "randomized"
        assert found.provenance["products"] < 96


def test_all_values_above_a_tolerance_are_counted(task):
    whole = Spectrum().run(task(SpectrumParams(), 0)).arrays["singular_values"].data
    found = Spectrum().run(task(SpectrumParams(tol=0.25), 0))
    expected = int((whole > 0.25 * whole[0]).sum())
    assert found.summary["rank"].value == found.summary["found"].value == expected
    assert found.summary["threshold"].value == pytest.approx(0.25 * whole[0], rel=1e-3)
    above = Spectrum().run(task(SpectrumParams(tol=0.25, threshold=0.4), 0))
    assert above.summary["rank"].value == (whole > 0.4 * whole[0]).sum()
    by_rank = Spectrum().run(task(SpectrumParams(rank=expected + 1, threshold=0.25), 0))
    assert by_rank.summary["rank"].value == expected
    assert "rank" not in Spectrum().run(task(SpectrumParams(rank=1, threshold=0.25), 0)).summary


def test_the_estimate_of_the_norm_is_unbiased_and_its_interval_covers_it():
    values = np.geomspace(10, 1, 40)
    truth = float(np.sum(values**2))
    module = linear(values, 90)
    params = SpectrumParams(rank=3, method="randomized", trace_directions=6, noise_directions=0)
    squares, covered = [], 0
    for seed in range(80):
        given = vector_task(module, torch.zeros(1, 90), params, seed=seed)
        found = measure(given, given.jacobian(given.samples[0]), vectors=False)
        squares.append(found.frobenius**2)
        covered += found.frobenius_interval[0] ** 2 <= truth <= found.frobenius_interval[1] ** 2
        assert found.checks["rest"].passed
    error = np.std(squares, ddof=1) / 80**0.5
    assert abs(np.mean(squares) - truth) < 4 * error
    assert error < 0.02 * truth
    assert covered >= 69  # 95% of 80 are 76; fewer than 69 have probability 1e-3


def test_what_does_not_converge_says_so_and_what_to_do(task, monkeypatch):
    svd = eqv.linalg.svd
    monkeypatch.setattr(eqv.linalg, "svd", lambda *args, **options: svd(*args, **options, max_products=30))
    found = Spectrum().run(task(SpectrumParams(rank=12, method="randomized"), 0))
    assert found.status == "not_converged"
    assert "--set method=exact" in found.message
    assert len(found.arrays["lower"].data) == len(found.arrays["singular_values"].data)


def test_products_that_are_not_finite_are_an_error():
    class Cliff(nn.Module):
        def forward(self, x):
            return x[:, :4].abs().sqrt()  # of infinite slope at 0

    with pytest.raises(eqv.NumericsError):
        Spectrum().run(vector_task(Cliff(), torch.zeros(1, 9), SpectrumParams(rank=1, method="randomized")))


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "randomized"},
        {"mixed": True},
        {"mixed": True, "rank": 2, "method": "exact"},
        {"tol": 0.1, "threshold": 0.01},
        {"angles": 3},
        {"angles": 3, "rank": 2, "compare": True},
        {"matched": "gd"},
        {"rank": 0},
        {"tol": 1.0},
    ],
)
def test_parameters_that_do_not_fit_together_are_refused(settings):
    with pytest.raises(ValidationError):
        SpectrumParams(**settings)


def test_a_rank_beyond_the_matrix_is_a_usage_error(task):
    with pytest.raises(eqv.UsageError, match="rank is out of range"):
        Spectrum().run(task(SpectrumParams(rank=97), 0))


@pytest.mark.parametrize("settings", [{}, {"rank": 4}, {"compare": True, "rank": 4}])
def test_figures_are_drawn_from_arrays_without_pyplot(task, settings):
    pytest.importorskip("matplotlib")
    found = Spectrum().run(task(SpectrumParams(**settings), 0, 1))
    figures = Spectrum().figures(found.arrays)
    assert set(figures) == {"Singular values"} | ({"Principal angles"} if "compare" in settings else set())
    (axes,) = figures["Singular values"].axes
    assert axes.get_yscale() == "log"
    assert np.array_equal(axes.lines[0].get_ydata(), found.arrays["singular_values"].data) == ("rank" in settings)
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(
        float((found.arrays["singular_values"].data + found.arrays["error"].data)[0])
    )
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert len(dashed) == (0 if "rank" in settings else 1)  # the resolution, where the spectrum comes near it
    for figure in figures.values():
        figure.savefig(buffer := io.BytesIO(), format="png", dpi=40)
        assert buffer.getvalue().startswith(b"\x89PNG")
