"""The spectrum probe against a dense float64 Jacobian from torch.func.jacrev, which shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import equivengine as eqv
from equivengine_plugins.probes.spectrum import Spectrum, SpectrumParams


def dense_float64(encoder, x):
    double = encoder.at_precision("fp64")
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.func.jacrev(lambda z: double(z[None])[0])(x.double()).flatten(1)


def test_singular_values_are_those_of_the_float64_jacobian(digits, task):
    given = task(SpectrumParams(vectors=3), 0)
    found = Spectrum().run(given)
    J = dense_float64(digits, given.samples[0])
    truth = torch.linalg.svdvals(J).numpy()
    values = found.arrays["singular_values"].data
    noise = found.summary["noise"].value
    assert 0 < noise < 1e-5 * truth[0]
    assert np.abs(values - truth).max() <= 4 * noise  # the noise is itself an estimate from 4 vectors
    assert found.summary["s_1"].interval[0] <= truth[0] <= found.summary["s_1"].interval[1]
    assert found.summary["frobenius"].value == pytest.approx(float(torch.linalg.matrix_norm(J)), rel=1e-6)
    assert all(check.passed for check in found.checks.values())
    V = torch.linalg.svd(J, full_matrices=False).Vh[:3].numpy()
    assert np.abs(np.abs((found.arrays["right_vectors"].data * V).sum(1)) - 1).max() < 1e-4


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


def test_the_threshold_is_relative_to_the_top(task):
    loose = Spectrum().run(task(SpectrumParams(threshold=0.5), 0))
    values = loose.arrays["singular_values"].data
    assert loose.summary["rank"].value == (values > 0.5 * values[0]).sum()


def test_ranks_of_a_known_linear_encoder(task):
    from torch import nn

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.diag(torch.tensor([2.0, 2.0, 1.0, 0.0])) @ torch.eye(4, 1024))

        def forward(self, x):
            return x.flatten(1) @ self.w.T

    plain = eqv.Preprocessing(size=(32, 32), mode="L", resize="squash", mean=(0.0,), std=(1.0,))
    encoder = eqv.Encoder(eqv.LoadedModel(Linear(), plain), "linear")
    found = Spectrum().run(task(SpectrumParams(), 0, encoder=encoder))
    assert np.allclose(found.arrays["singular_values"].data, [2, 2, 1, 0], atol=1e-6)
    assert found.summary["rank"].value == 3
    assert found.summary["stable_rank"].value == pytest.approx(9 / 4)
    p = np.array([0.4, 0.4, 0.2])
    assert found.summary["effective_rank"].value == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), rel=1e-6)
    assert found.summary["rank_90"].value == 3


def test_normalised_outputs_are_checked_to_be_tangent(task):
    from torch import nn

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
