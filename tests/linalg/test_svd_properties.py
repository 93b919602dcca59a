"""Laws that hold for every matrix: scaling, rotation, orthonormality, signs, bounds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from svd_cases import assert_bounds_hold, assert_orthonormal, matrix

from equivengine.linalg import svd
from equivengine.testing.maps import orthonormal, spectra

N, M = 64, 150
METHODS = [("exact", None), ("exact", 6), ("randomized", 6)]
NAMES = ["fast decay", "decay 1/sqrt(i)", "linear", "pairs", "one dominant"]


def of(name):
    return matrix(N, M, spectra(N)[name][0])


@pytest.mark.parametrize(("method", "rank"), METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_a_power_of_two_scales_every_bit(name, dtype, method, rank):
    J = of(name).to(dtype)
    one = svd(J, rank, method=method)
    for power in (-30, -1, 7, 40):
        scaled = svd(J * 2.0**power, rank, method=method)
        for array in ("S", "lower", "residual", "error"):
            assert torch.equal(getattr(scaled, array), getattr(one, array) * 2.0**power), array
        assert torch.equal(scaled.U, one.U)
        assert torch.equal(scaled.Vh, one.Vh)
        assert scaled.products == one.products
        assert scaled.subspace_error == one.subspace_error


@pytest.mark.parametrize("factor", [1e-20, 3e-4, 1e5, 7e15])
@pytest.mark.parametrize(("method", "rank"), METHODS)
def test_any_factor_scales_the_values(factor, method, rank):
    J = of("decay 1/sqrt(i)").float()
    one, scaled = svd(J, rank, method=method), svd(J * factor, rank, method=method)
    assert scaled.status == "ok"
    assert torch.allclose(scaled.S, factor * one.S, rtol=1e-5, atol=0)
    assert torch.allclose(scaled.error, factor * one.error, rtol=0.1, atol=0)
    assert_orthonormal(scaled, 1e-12, 1e-6)


@pytest.mark.parametrize(("method", "rank"), METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_rotations_of_either_side_leave_the_values(name, method, rank):
    J = of(name)
    left, right = orthonormal(N, N, 77), orthonormal(M, M, 78)
    one = svd(J, rank, method=method)
    for rotated, U, V in ((left @ J, left, torch.eye(M).double()), (J @ right, torch.eye(N).double(), right)):
        other = svd(rotated, rank, method=method)
        assert ((one.S - other.S).abs() <= one.error + other.error).all()
        if method == "exact" and name != "pairs":  # whose vectors are not determined
            assert ((other.U.T @ U @ one.U).abs() - torch.eye(len(one.S))).abs().max() < 1e-9
            assert ((other.Vh @ V.T @ one.Vh.T).abs() - torch.eye(len(one.S))).abs().max() < 1e-9


def test_rows_and_columns_of_zeros_change_nothing():
    J = of("decay 1/i").float()
    padded = torch.zeros(N + 9, M + 30)
    padded[4 : 4 + N, 11 : 11 + M] = J
    for method, rank in METHODS:
        one, other = svd(J, rank, method=method), svd(padded, rank, method=method)
        r = len(one.S)
        assert ((one.S - other.S[:r]).abs() <= one.error + other.error[:r]).all()
        assert (other.S[r:] <= other.resolution).all()


@st.composite
def matrices(draw):
    n = draw(st.integers(1, 24))
    m = draw(st.integers(1, 60))
    smaller = min(n, m)
    exponents = draw(st.lists(st.floats(-9, 4), min_size=smaller, max_size=smaller))
    zeros = draw(st.integers(0, smaller - 1))
    values = 10 ** torch.tensor(sorted(exponents, reverse=True), dtype=torch.float64)
    values[smaller - zeros :] = 0
    if draw(st.booleans()):
        values[: smaller // 2 + 1] = values[0]  # equal values
    J = matrix(smaller, max(n, m), values, draw(st.integers(0, 1000)))
    J = J if n <= m else J.T
    return J.to(draw(st.sampled_from([torch.float32, torch.float64])))


@settings(max_examples=150, deadline=None)
@given(
    J=matrices(), method=st.sampled_from(["exact", "randomized", "auto"]), seed=st.integers(0, 2**31), data=st.data()
)
def test_every_matrix_gets_what_is_promised(J, method, seed, data):
    n, m = J.shape
    smaller = min(n, m)
    rank = data.draw(st.integers(1, smaller))
    before = J.clone()
    found = svd(J, rank, method=method, seed=seed)
    assert torch.equal(J, before)
    assert (found.U.shape, found.S.shape, found.Vh.shape) == ((n, rank), (rank,), (rank, m))
    tight = 1e-6 if J.dtype == torch.float32 else 1e-12
    assert_orthonormal(found, 1e-12 if n <= m else tight, tight)
    assert (found.S.diff() <= 0).all()
    assert (found.S >= 0).all()
    shorter = found.U if n <= m else found.Vh.T
    assert (shorter.gather(0, shorter.abs().argmax(0, keepdim=True)) > 0).all()
    truth = torch.linalg.svdvals(J.double())
    # LAPACK's own roundoff is no error of ours.
    slack = 1e-14 * truth[0]
    assert (found.lower <= truth[:rank] + slack).all()
    assert ((found.S[:, None] - truth).abs().amin(1) <= found.residual + slack).all()
    assert 0 <= found.subspace_error <= 1
    if found.method == "exact":
        assert_bounds_hold(found, truth)
        assert float(found.frobenius) == pytest.approx(float(truth.norm()), rel=1e-6)


@pytest.mark.parametrize("seed", [1, 14, 18])
def test_values_hold_where_rows_of_roundoff_pass_for_independent_ones(seed: int):
    """A row was deferred, taken up and deferred again, and what later rows had of it was lost: 1011 for 1000."""
    values = torch.tensor([1000.0] * 13 + [1.0, 1.0, 0.1] + [0.0] * 8, dtype=torch.float64)
    found = svd(matrix(24, 24, values, seed), 1, method="auto", seed=505)
    assert float(found.S[0]) == pytest.approx(1000, rel=1e-12)
