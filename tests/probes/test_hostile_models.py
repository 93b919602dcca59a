"""Probes on models at the edge: what cannot be measured is one error with its cause, what can is within its floor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine_plugins.probes.ldlc import Ldlc
from equivengine_plugins.probes.numerics import Numerics
from equivengine_plugins.probes.spectrum import Spectrum

SHAPE = (1, 5, 5)
FEW = {"directions": 4, "null_directions": 6, "noise_directions": 4, "singular_directions": 2, "gradient_steps": 2}
ORIGINAL, TARGET = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1))


class Of(nn.Module):
    """A map of 25 pixels to 6 numbers around two matrices."""

    def __init__(self, f):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.A, self.B = (nn.Parameter(torch.randn(6, k, generator=generator) / 5) for k in (25, 6))
        self.f = f

    def forward(self, x):
        return self.f(self, x.flatten(1))


def run(probe, f, samples, precision="fp32", **params):
    loaded = eqv.LoadedModel(Of(f), lambda raw: raw, input_shape=SHAPE, random_weights=True)
    digests = [str(index) * 64 for index in range(len(samples))]
    task = ProbeTask(eqv.Encoder(loaded, "of"), samples, probe.Params(**params), 0, precision, digests, digests)
    return probe().run(task)


def root(self, x):
    away = x - ORIGINAL.flatten().to(x.dtype)
    return torch.cat([away.square().sum(1, keepdim=True).sqrt(), x @ self.A.T], 1)


def gone(self, x):
    return torch.tanh(x @ self.A.T) * 1e-41


def casting(self, x):
    inner = (torch.sin(3 * x) @ self.A.T).float()
    return torch.tanh(inner / inner.square().mean(-1, keepdim=True).add(1e-6).sqrt()).to(x.dtype) @ self.B.T.tanh()


def curved(self, x):
    inner = torch.sin(3 * x) @ self.A.T
    return torch.tanh(inner / inner.square().mean(-1, keepdim=True).add(1e-6).sqrt()) @ self.B.T.tanh()


@pytest.mark.parametrize("probe", [Numerics, Spectrum])
def test_a_derivative_that_is_not_finite_is_called_so(probe):
    with pytest.raises(eqv.NumericsError, match="NaN or infinity"):
        run(probe, root, [ORIGINAL])


def test_a_jacobian_that_underflows_is_called_so_and_float64_has_it():
    with pytest.raises(eqv.NumericsError, match="underflows in fp32 here"):
        run(Spectrum, gone, [ORIGINAL])
    found = run(Spectrum, gone, [ORIGINAL], "fp64")
    assert found.status == "ok"
    assert found.summary["rank"].value == 6


@pytest.mark.parametrize(("f", "least", "most"), [(casting, 1e-7, 1e-2), (curved, 0, 1e-9)])
def test_null_secants_of_a_model_with_float32_inside_have_the_floor_of_float32(f, least, most):
    found = run(Ldlc, f, [ORIGINAL, TARGET], "fp64", **FEW)
    measured, floor, curvature = (
        found.summary[n].value for n in ("null_secant", "noise_null_secant", "null_curvature")
    )
    assert least <= floor <= most
    assert measured <= curvature + 3 * floor


def test_a_largest_singular_value_of_float64_is_within_its_error_with_float32_inside():
    single, truth = (run(Spectrum, f, [ORIGINAL], "fp64") for f in (casting, curved))
    gap = abs(single.arrays["singular_values"].data - truth.arrays["singular_values"].data)
    assert gap.max() > 1e-10
    assert (gap <= single.arrays["error"].data).all()
