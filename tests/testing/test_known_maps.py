"""The bank of known maps: its formulas against float64 derivatives, and against what the ldlc probe measures."""

from __future__ import annotations

import pytest
import torch

import equivengine as eqv
from equivengine.testing import known_maps
from equivengine.testing.maps import NONLINEARITIES
from equivengine_plugins.probes.ldlc import LdlcParams
from equivengine_plugins.probes.ldlc.along import measure_along

BANK = known_maps(n=48, m=160, seed=3)
CLOSED = [each for each in BANK if each.factors is not None]
NETWORKS = [each for each in BANK if each.factors is None]
ROUNDING = 2.0**-24


def named(maps):
    return pytest.mark.parametrize("known", maps, ids=lambda known: known.name)


def test_the_bank_holds_every_shape_of_spectrum():
    names = {each.name for each in BANK}
    assert len(names) == len(BANK)
    assert {"fast decay", "decay 1/sqrt(i)", "flat", "flat within 1e-4", "clusters of 10", "rank 10"} <= names
    assert {"one dominant", "condition 1e12", "tanh network", "GELU network"} <= names
    assert {each.name.split()[0] for each in CLOSED if "sandwich" in each.name} == {"tanh", "softplus", "sine"}
    assert [each.name for each in BANK if not each.solvable] == ["flat within 1e-4", "flat within 1e-2"]


@named(CLOSED)
def test_singular_values_in_closed_form_are_those_of_the_float64_jacobian(known):
    # Weyl: off by no more than the rounding of parameters, of U s and of V (a linear map has but one).
    bound = 4 * ROUNDING * (known.closed_form.norm() + known.factors.s[0] * known.factors.s.numel() ** 0.5)
    assert ((known.closed_form - known.singular_values).abs() <= bound).all()
    assert (known.closed_form.diff() <= 0).all()


@named(NETWORKS)
def test_networks_are_differentiated_in_float64(known):
    assert known.jacobian.dtype == torch.float64
    J32 = torch.func.jacrev(lambda x: known.f(x[None])[0])(known.x)
    difference = torch.linalg.matrix_norm(J32 - known.jacobian)
    assert 0 < difference < 1e-5 * torch.linalg.matrix_norm(known.jacobian)
    assert next(known.f.parameters()).dtype == torch.float32
    h, v = 1e-6, torch.linalg.svd(known.jacobian).Vh[0]
    f, x = reference_f64(known), known.x.double()
    slope = (f(x + h * v) - f(x - h * v)) / (2 * h)
    assert torch.allclose(slope, known.jacobian @ v, rtol=0, atol=1e-7 * float(known.singular_values[0]))


def reference_f64(known):
    import copy

    f = copy.deepcopy(known.f).double()
    return lambda x: f(x[None])[0]


@named(NETWORKS)
def test_networks_have_no_closed_form(known):
    for ask in (lambda: known.closed_form, lambda: known.direction(0), lambda: known.ldlc(0, 0.1)):
        with pytest.raises(ValueError, match="no closed form"):
            ask()


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_slopes_are_derivatives_and_the_steepest_is_their_supremum(name):
    g = NONLINEARITIES[name]
    z = torch.linspace(-7, 7, 1401, dtype=torch.float64)
    slope = torch.func.vmap(torch.func.grad(g.g))(z)
    assert torch.allclose(g.slope(z), slope, atol=1e-13, rtol=0)
    for eps in (1e-3, 0.3, 2.5):
        around = g.slope(z[:, None] + eps * torch.linspace(-1, 1, 4001, dtype=torch.float64)).abs().amax(1)
        above = g.steepest(z, eps) - around
        assert above.min() >= -1e-13
        assert above.max() <= (eps / 2000) ** 2


@pytest.mark.parametrize("eps", [1e-3, 0.1, 1.0])
@named([each for each in CLOSED if "sandwich" in each.name or each.name == "decay 1/i"])
def test_the_ldlc_probe_measures_the_constant_that_the_formula_gives(known, eps):
    operator = eqv.JacobianOperator(known.f, known.x, precision="fp64")
    indices = [0, 1, 7, 30]
    directions = torch.stack([known.direction(index) for index in indices])
    found = measure_along(operator, (0.0, 1.0), directions, None, LdlcParams(eps=eps, grid=101))
    truth = torch.tensor([known.ldlc(index, eps) for index in indices])
    tangent, secant = torch.from_numpy(found.tangent), torch.from_numpy(found.secant)
    # Both are lower bounds, up to the rounding of parameters; the tangent has a node within eps / 100 of the peak, and
    # a secant is the slope somewhere within a step of eps / 50.
    assert (tangent <= truth * (1 + 1e-6)).all()
    assert (tangent >= truth * (1 - 1e-6 - (eps / 100) ** 2)).all()
    assert (secant <= truth * (1 + 1e-6)).all()
    assert (secant >= truth * (1 - 1e-6 - eps / 50)).all()


def test_the_constant_exceeds_the_slope_at_x_where_the_map_bends():
    known = next(each for each in BANK if each.name == "softplus sandwich, decay 1/i")
    slope = torch.linalg.vector_norm(known.jacobian @ known.direction(0))
    assert known.ldlc(0, 0.0) == pytest.approx(float(slope), rel=1e-6)
    assert known.ldlc(0, 1.0) > 1.1 * slope


def test_a_bank_of_impossible_size_is_refused():
    for n, m in ((20, 100), (100, 50)):
        with pytest.raises(ValueError, match="24 <= n <= m"):
            known_maps(n, m)
