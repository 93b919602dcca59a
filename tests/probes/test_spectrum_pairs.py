"""The probe spectrum on two inputs: how the normal space turns, and spans that values leave open."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from spectrum_cases import linear, vector_task
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine_plugins.probes.spectrum import Spectrum, SpectrumParams
from equivengine_plugins.probes.spectrum.baseline import random_angles
from equivengine_plugins.probes.spectrum.comparison import compare
from equivengine_plugins.probes.spectrum.identified import spans_of
from equivengine_plugins.probes.spectrum.measure import measure


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


def turned_by(t, s, speeds, m=40, **params):
    """The task that compares x_0 = 0 with x_0 = t."""
    points = torch.zeros(2, m)
    points[1, 0] = t
    return vector_task(Turning(s, speeds, m), points, SpectrumParams(compare=True, **params))


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
