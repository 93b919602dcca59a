"""Bounds of singular values at the ends of what numbers can be: underflow, overflow, zero, ties, one row or column."""

from __future__ import annotations

import pytest
import torch

import equivengine as eqv

TIED = (1.0, 1.0, 1.0, 0.5, 0.5, 1e-2, 1e-3, 1e-4, 1e-5, 0.0, 0.0, 0.0)
N, M = len(TIED), 30


def matrix(scale, dtype):
    """A matrix with these singular values times a scale, and the values that it has after rounding."""
    generator = torch.Generator().manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(k, N, generator=generator, dtype=torch.float64))[0] for k in (N, M))
    A = (U * torch.tensor(TIED, dtype=torch.float64)) @ V.T
    rounded = A.mul(scale).to(dtype)
    return rounded, torch.linalg.svdvals(rounded.double() / scale) * scale


def assert_bounds_hold(found, truth):
    nearest = (found.S[:, None] - truth[None]).abs().amin(1)
    assert bool((found.lower <= truth[: len(found.S)]).all())
    assert bool((nearest <= found.residual).all())
    assert bool(((found.S - truth[: len(found.S)]).abs() <= found.error).all())


SCALES = {
    torch.float32: (1e-42, 1e-37, 1e-30, 1e30, 1e37),
    torch.float64: (1e-310, 1e-165, 1e-150, 1e-30, 1e30, 1e160, 1e300),
}


@pytest.mark.parametrize("how", [{}, {"rank": 3, "method": "randomized", "tol": 1e-2}])
@pytest.mark.parametrize(("dtype", "scale"), [(dtype, scale) for dtype, all_ in SCALES.items() for scale in all_])
def test_bounds_hold_at_any_scale(dtype, scale, how):
    A, truth = matrix(scale, dtype)
    found = eqv.linalg.svd(A, **how)
    assert_bounds_hold(found, truth)
    underflows = scale < (1e-38 if dtype == torch.float32 else 1e-154)
    assert (found.rank == 0) == underflows
    if not how:
        assert float(found.frobenius) == pytest.approx(scale * float((truth / scale).norm()), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("how", [{}, {"rank": 2, "method": "randomized"}, {"tol": 1e-2}])
def test_zero_has_the_spectrum_zero(dtype, how):
    found = eqv.linalg.svd(torch.zeros(N, M, dtype=dtype), **how)
    assert found.status == "ok"
    assert found.rank == 0
    assert not found.S.any()
    assert bool((found.error < 1e-30).all())
    assert torch.allclose(found.Vh.double() @ found.Vh.double().T, torch.eye(len(found.Vh)).double(), atol=1e-6)


def test_a_saturated_model_has_no_singular_values_that_float32_could_tell():
    W = 300 * torch.randn(5, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def saturated(x):
        return torch.softmax(x @ W.to(x.dtype).T, -1)

    x = torch.rand(9, generator=torch.Generator().manual_seed(2))
    single, double = (eqv.JacobianOperator(saturated, x, precision=precision) for precision in ("fp32", "fp64"))
    truth = eqv.linalg.svd(double)
    assert 0 < float(truth.S[0]) < 1e-38
    for how in ({}, {"rank": 2, "method": "randomized"}):
        found = eqv.linalg.svd(single, **how)
        assert found.rank == 0
        assert_bounds_hold(found, truth.S)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (20, 1), (20, 4)])
def test_one_row_one_column_and_more_outputs_than_inputs(shape):
    W = torch.randn(*shape, generator=torch.Generator().manual_seed(3))
    J = eqv.JacobianOperator(lambda x: x @ W.to(x.dtype).T, torch.rand(shape[1]))
    found = eqv.linalg.svd(J)
    assert found.rank == min(shape)
    assert_bounds_hold(found, torch.linalg.svdvals(W.double()))
