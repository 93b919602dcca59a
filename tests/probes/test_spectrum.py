"""The spectrum probe against maps whose Jacobian is known, and a dense float64 Jacobian that shares no code with it."""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine_plugins.probes.spectrum import Spectrum, SpectrumParams
from equivengine_plugins.probes.spectrum.baseline import random_angles
from equivengine_plugins.probes.spectrum.comparison import compare
from equivengine_plugins.probes.spectrum.identified import spans_of
from equivengine_plugins.probes.spectrum.measure import measure

WHOLE_ONLY = {"s_median", "effective_rank", "rank_90", "null_dim", "null_share"}


def dense_float64(encoder, x):
    double = encoder.at_precision("fp64")
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.func.jacrev(lambda z: double(z[None])[0])(x.double()).flatten(1)


class Turning(nn.Module):
    """f(x) = C diag(s) (cos(w x_0) V + sin(w x_0) W) x of the m - 1 other coordinates: at x_0 its Jacobian is known.

    V and W are the first and the next k coordinates: so the normal spaces at x_0 = 0 and x_0 = t differ by k principal
    angles w_i t. The column of d/dx_0 vanishes where the others do. All in float64: parameters would be float32.
    """

    def __init__(self, s, speeds, m):
        super().__init__()
        k = len(s)
        generator = torch.Generator().manual_seed(0)
        self.C = torch.linalg.qr(torch.randn(k, k, generator=generator, dtype=torch.float64)).Q
        self.s = torch.tensor(s, dtype=torch.float64)
        self.w = torch.tensor(speeds, dtype=torch.float64)
        self.m = m

    def forward(self, x):
        k, dtype = len(self.s), x.dtype
        angle = x[:, :1] * self.w.to(dtype)
        turned = angle.cos() * x[:, 1 : k + 1] + angle.sin() * x[:, k + 1 : 2 * k + 1]
        return (self.s.to(dtype) * turned) @ self.C.to(dtype)


def vector_task(module, points, params, precision="fp64", seed=0):
    """A task on an encoder of vectors [m]."""
    points = [torch.as_tensor(point, dtype=torch.float32) for point in points]
    loaded = eqv.LoadedModel(module, preprocessing=lambda raw: raw, input_shape=tuple(points[0].shape))
    digests = [f"{i:064x}" for i in range(len(points))]
    return ProbeTask(eqv.Encoder(loaded, "map"), points, params, seed, precision, sample_digests=digests)


def turned_by(t, s, speeds, m=40, **params):
    """The task that compares x_0 = 0 with x_0 = t."""
    points = torch.zeros(2, m)
    points[1, 0] = t
    return vector_task(Turning(s, speeds, m), points, SpectrumParams(compare=True, **params))


class Linear(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.w = matrix  # no parameter: those are float32

    def forward(self, x):
        return x.flatten(1) @ self.w.T.to(x.dtype)


def linear(values, m, n=None, seed=0):
    """A linear map R^m -> R^n with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    k = len(values)
    left, right = (
        torch.linalg.qr(torch.randn(size, k, generator=generator, dtype=torch.float64)).Q for size in (n or k, m)
    )
    return Linear((left * torch.as_tensor(values, dtype=torch.float64)) @ right.T)


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


# -- two inputs -------------------------------------------------------------------------------------------------------

SPEEDS = (0.0, 1e-5, 0.1, 0.4, 1.0)
VALUES = (5.0, 4.0, 3.0, 2.0, 1.0)


def test_the_arity_follows_compare():
    assert Spectrum.arity == "one"
    assert Spectrum.arity_of(SpectrumParams()) == "one"
    assert Spectrum.arity_of(SpectrumParams(compare=True)) == "pair"


@pytest.mark.parametrize("settings", [{}, {"rank": 5}, {"angles": 5}, {"tol": 0.1}])
def test_principal_angles_of_a_turning_normal_space_are_as_constructed(settings):
    found = Spectrum().run(turned_by(0.5, VALUES, SPEEDS, **settings))
    assert found.status == "ok"
    expected = 0.5 * np.array(sorted(SPEEDS))
    assert np.abs(found.arrays["principal_angles"].data - expected).max() < 1e-13
    assert found.summary["compared"].value == 5
    assert found.summary["identified"].value == 1
    assert found.summary["angle_largest"].value == pytest.approx(0.5)
    assert found.summary["grassmann_distance"].value == pytest.approx(np.linalg.norm(expected))
    assert found.summary["overlap"].value == pytest.approx(np.mean(np.cos(expected) ** 2))
    weighted = np.sum(np.square(VALUES) * np.cos(0.5 * np.array(SPEEDS)) ** 2) / np.sum(np.square(VALUES))
    for whose in ("original_in_target", "target_in_original"):
        assert found.summary[whose].value == pytest.approx(weighted)
        assert np.allclose(found.arrays[whose].data, np.cos(0.5 * np.array(SPEEDS)) ** 2)
    assert found.summary["random_share"].value == 5 / 40
    assert np.allclose(found.arrays["ratio"].data, 1)
    assert found.summary["ratio_s_1"].value == pytest.approx(1)
    assert all(check.passed for check in found.checks.values())
    assert not found.nan_scalars()


def test_leading_angles_alone_compare_leading_vectors():
    found = Spectrum().run(turned_by(0.5, VALUES, SPEEDS, angles=3))
    assert np.allclose(found.arrays["principal_angles"].data, 0.5 * np.array(sorted(SPEEDS[:3])), atol=1e-12)


@pytest.mark.parametrize("settings", [{"rank": 2}, {"angles": 2}])
def test_spans_that_equal_singular_values_leave_open_are_not_compared_silently(settings):
    # s_2 = s_3: any direction of their plane may come second.
    found = Spectrum().run(turned_by(0.5, (5.0, 3.0, 3.0, 1.0), (0.1, 0.2, 0.3, 0.4), **settings))
    assert found.status == "not_converged"
    assert "leading 2 right vectors of original and target is not identifiable" in found.message
    assert "--set angles=" in found.message or "rank" in settings
    assert found.summary["identified"].value == 0
    assert found.summary["original_span_error"].value == found.summary["target_span_error"].value == 1
    assert found.summary["angle_largest"].interval == (0.0, pytest.approx(math.pi / 2))


def test_vectors_that_are_not_accurate_enough_come_with_advice_that_fits_how_they_were_found():
    def faults(found_by, precision="fp64", **settings):
        given = dataclasses.replace(turned_by(0.5, VALUES, SPEEDS, **settings), precision=precision)
        both = []
        for x in given.samples:
            measured = measure(given, given.jacobian(x), vectors=True)
            # The gap is 1: the span of k is off by an angle of 0.2 or more.
            residual = torch.full_like(measured.found.S, 1e-3)
            residual[given.params.angles - 1] = 0.2
            found = dataclasses.replace(measured.found, residual=residual, method=found_by)
            both.append(dataclasses.replace(measured, found=found))
        found = compare(given, *both)
        assert found.summary["identified"].value == 0
        assert 0.1 < found.summary["original_span_error"].value < 1
        return " ".join(found.faults)

    text = faults("randomized", angles=3)
    assert "the leading 3 right vectors of original and target is not accurate enough" in text
    assert text.endswith("--set angles=1 or 2, or lower tol, or --set method=exact")
    text = faults("randomized", angles=1, rank=3)
    assert "look for more than is compared (--set rank=5 --set angles=1), or lower tol" in text
    text = faults("exact", "fp32", angles=2)
    assert text.endswith("instead: --set angles=1, or --precision fp64")
    text = faults("exact", "fp64", angles=1)
    assert text.endswith("so their angles say little")


def test_by_default_the_widest_span_that_is_identified_is_compared():
    # The last value is roundoff of the first one: no vector belongs to it.
    found = Spectrum().run(turned_by(0.5, (5.0, 3.0, 3.0, 1e-16), (0.1, 0.2, 0.3, 0.4)))
    assert found.status == "ok"
    assert found.summary["compared"].value == 3
    assert np.allclose(found.arrays["principal_angles"].data, [0.05, 0.1, 0.15])
    with pytest.raises(eqv.UsageError, match="fewer singular vectors"):
        Spectrum().run(turned_by(0.5, VALUES, SPEEDS, angles=6))


def test_errors_of_spans_cover_what_float32_does_to_them():
    values = np.geomspace(1, 1e-4, 12)
    module = linear(values, 60)
    exact, rough = (
        measure(given, given.jacobian(given.samples[0]), vectors=True)
        for given in (vector_task(module, torch.zeros(1, 60), SpectrumParams(), p) for p in ("fp64", "fp32"))
    )
    sines = spans_of(rough).sine
    for k in range(1, 13):
        one, other = (eqv.linalg.Subspace(each.found.Vh[:k]) for each in (exact, rough))
        assert math.sin(float(one.principal_angles(other)[-1])) <= sines[k - 1] < 0.1


@pytest.mark.parametrize(("k", "m"), [(1, 30), (4, 30), (5, 8), (3, 3)])
def test_angles_of_random_subspaces_are_distributed_like_those_of_drawn_ones(k, m):
    draws = 400
    small = random_angles(k, m, draws, seed=1)
    generator = torch.Generator().manual_seed(2)
    drawn = np.stack(
        [
            eqv.linalg.Subspace(torch.randn(k, m, generator=generator, dtype=torch.float64))
            .principal_angles(eqv.linalg.Subspace(torch.randn(k, m, generator=generator, dtype=torch.float64)))
            .numpy()
            for _ in range(draws)
        ]
    )
    assert np.mean(np.cos(small) ** 2) == pytest.approx(k / m, rel=0.1)  # E tr(P Q) = k^2 / m
    spread = np.sqrt((small.var(axis=0) + drawn.var(axis=0)) / draws)
    assert (np.abs(small.mean(axis=0) - drawn.mean(axis=0)) <= 4.5 * spread + 1e-7).all()


def test_images_of_the_same_digit_have_nearer_normal_spaces_than_random_subspaces(task):
    found = Spectrum().run(task(SpectrumParams(compare=True, rank=10), 0, 10))
    distance, chance = (found.summary[name] for name in ("grassmann_distance", "random_distance"))
    assert distance.interval[1] < chance.interval[0]
    assert found.summary["overlap"].value > 5 * found.summary["random_share"].value
    assert {"s_1", "target_s_1", "frobenius", "target_frobenius"} <= set(found.summary)
    assert set(found.provenance) == {"original", "target"}
    turned = Spectrum().run(task(SpectrumParams(compare=True, rank=10), 10, 0))
    assert turned.summary["grassmann_distance"].value == pytest.approx(distance.value, rel=1e-2)
    assert turned.summary["ratio_s_1"].value == pytest.approx(1 / found.summary["ratio_s_1"].value, rel=1e-2)


# -- figures ----------------------------------------------------------------------------------------------------------


class Bent(nn.Module):
    """f(x) = tanh(P x) of images: its Jacobian is diag(1 - f^2) P."""

    def __init__(self, n=4, m=24):
        super().__init__()
        self.P = nn.Parameter(torch.randn(n, m, generator=torch.Generator().manual_seed(3)) / 4)

    def forward(self, x):
        return torch.tanh(x.flatten(1) @ self.P.T)


def matched_task(solver, **params):
    module, generator = Bent(), torch.Generator().manual_seed(5)
    original, target, *references = torch.rand(8, 1, 4, 6, generator=generator)
    loaded = eqv.LoadedModel(module, preprocessing=lambda raw: raw, input_shape=(1, 4, 6))
    return module, ProbeTask(
        eqv.Encoder(loaded, "map"),
        [original, target],
        SpectrumParams(compare=True, matched=solver, **params),
        0,
        references=torch.stack(references),
        reference_digests=[f"r{k}" for k in range(len(references))],
    )


@pytest.mark.parametrize(("solver", "tolerance"), [("gd", 1e-3), ("lm", 1e-5), ("minimal-l2", 1e-5)])
def test_an_original_is_compared_with_what_it_is_matched_to(solver, tolerance):
    module, given = matched_task(solver, tolerance=tolerance)
    found = Spectrum().run(given)
    assert found.status == "ok"
    assert found.summary["match_relative"].value <= tolerance
    assert found.summary["match_mean"].value > 0
    # Whatever the solver found, its embedding is the target's, and this Jacobian is a function of the embedding.
    f = module(given.samples[1][None])[0]
    for name, value in (("matched_", f), ("", module(given.samples[0][None])[0])):
        truth = torch.linalg.svdvals((1 - value.square())[:, None] * module.P).detach().numpy()
        assert found.arrays[f"{name}singular_values"].data == pytest.approx(truth, rel=10 * tolerance)
    assert set(found.provenance) == {"original", "matched"}
    assert "matched_in_original" in found.arrays
    assert not [name for name in (*found.arrays, *found.summary) if "target" in name]
    assert set(Spectrum().figures(found.arrays)) == {"Singular values", "Principal angles"}


def test_a_match_that_was_not_reached_is_said(monkeypatch):
    monkeypatch.setattr("equivengine_plugins.probes.spectrum.matched._STEPS", 1)
    _, given = matched_task("gd", tolerance=1e-5)
    found = Spectrum().run(given)
    assert found.status == "not_converged"
    assert "the original was matched to" in found.message


def test_references_are_asked_for_where_a_match_needs_them():
    assert Spectrum.references_of(SpectrumParams(compare=True)) == 0
    assert Spectrum.references_of(SpectrumParams(compare=True, matched="lm", references=12)) == 12


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
