"""The exact SVD against torch.linalg.svd in float64, on spectra that are known by construction."""

from __future__ import annotations

import pytest
import torch
from svd_cases import Counting, assert_bounds_hold, assert_orthonormal, matrix

import equivengine as eqv
from equivengine.linalg import RESOLUTION, svd
from equivengine.testing import known_maps, reference_jacobian
from equivengine.testing.maps import Sandwich

BANK = known_maps(n=48, m=160, seed=1)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (24, 24), (24, 400), (96, 1024)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_to_linalg_svd_down_to_the_resolution(n, m, dtype):
    values = torch.logspace(2, -2, n, dtype=torch.float64)
    J = matrix(n, m, values).to(dtype)
    found = svd(J)
    assert (found.method, found.status, found.products) == ("exact", "ok", 0)
    truth = torch.linalg.svdvals(J.to(torch.float64))
    resolved = truth > 10 * found.resolution
    assert resolved.any()
    # Gram: the square of s_i is off by roundoff of s_1^2; the float32 entries themselves are not in question here.
    bound = 1e-12 * truth[0] ** 2 / truth if dtype == torch.float32 else 1e-13 * truth[0] * torch.ones(n)
    assert ((found.S - truth).abs()[resolved] <= bound[resolved]).all()
    assert found.frobenius == pytest.approx(float(torch.linalg.matrix_norm(J.double())), rel=1e-12)


@pytest.mark.parametrize("known", BANK, ids=lambda known: known.name)
def test_the_bank_by_the_products_of_a_jacobian(known):
    found = svd(eqv.JacobianOperator(known.f, known.x), method="exact")
    assert_bounds_hold(found, known.singular_values)
    # float32 vectors on the right; on the left float64, from an eigenproblem.
    assert_orthonormal(found, 1e-12, 1e-6)
    rebuilt = found.U @ torch.diag(found.S) @ found.Vh.double()
    assert torch.linalg.matrix_norm(rebuilt - known.jacobian) <= 2 * found.resolution * len(found.S) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_right_vectors_are_orthonormal_and_reproduce_the_matrix(dtype):
    J = matrix(32, 500, torch.logspace(1, -4, 32, dtype=torch.float64)).to(dtype)
    found = svd(J)
    assert found.Vh.dtype == dtype
    assert found.U.dtype == found.S.dtype == torch.float64
    assert_orthonormal(found, 1e-12, 1e-12 if dtype == torch.float64 else 1e-6)
    rebuilt = found.U @ torch.diag(found.S) @ found.Vh.double()
    assert torch.linalg.matrix_norm(rebuilt - J.double()) <= 2 * found.resolution * 32**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_deficient_matrices_keep_orthonormal_vectors_and_report_their_rank(dtype):
    values = torch.tensor([5.0, 1.0, 0.1, 0, 0, 0], dtype=torch.float64)
    found = svd(matrix(6, 80, values).to(dtype))
    assert found.rank == 3
    assert_orthonormal(found, 1e-12, 1e-12 if dtype == torch.float64 else 1e-6)


def test_the_zero_matrix_has_rank_zero():
    found = svd(torch.zeros(4, 9))
    assert found.status == "ok"
    assert found.rank == 0
    assert not found.S.any()
    assert_orthonormal(found, 1e-12, 1e-6)


def test_float64_resolves_what_float32_cannot():
    values = torch.tensor([1.0, 1e-3, 1e-9], dtype=torch.float64)
    J = matrix(3, 50, values)
    assert svd(J).S[2] == pytest.approx(1e-9, rel=1e-5)
    assert svd(J.float()).rank == 2
    assert svd(J).rank == 3


def test_fp64_of_a_float32_operator_resolves_values_far_below_1e_6():
    known = next(each for each in BANK if each.name == "condition 1e12")
    # Two float32 factors: rounding changes each column of U s by a part of itself, not of s_1.
    f = Sandwich(known.factors)
    truth = torch.linalg.svdvals((f.left.double()) @ f.right.double().T)
    operator = eqv.JacobianOperator(f, known.x)
    fine, coarse = svd(operator, precision="fp64"), svd(operator)
    assert fine.rank == 48
    assert coarse.rank < 30
    assert truth[-1] < 1e-11
    assert torch.allclose(fine.S, truth, rtol=1e-3, atol=0)
    assert fine.Vh.dtype == torch.float64
    assert fine.noise is None
    assert fine.products_by_precision == {"fp64": 49}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_vectors_the_values_are_the_same(dtype):
    J = matrix(20, 100, torch.logspace(0, -5, 20, dtype=torch.float64)).to(dtype)
    a, b = svd(J), svd(J, vectors=False)
    assert b.Vh is None
    assert torch.allclose(a.S, b.S, rtol=1e-9, atol=RESOLUTION[dtype] * 1e-2)


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [None, 3])
def test_the_callers_matrix_is_not_changed(dtype, rank, vectors):
    J = matrix(12, 60, torch.logspace(0, -9, 12, dtype=torch.float64)).to(dtype)
    for given in (J.clone(), J.T.contiguous()):
        before = given.clone()
        for method in ("exact", "auto") if rank is None else ("exact", "randomized"):
            svd(given, rank, method=method, vectors=vectors)
        assert torch.equal(given, before)


def test_a_rank_or_a_threshold_takes_the_leading_part():
    J = matrix(30, 90, 10 ** (-torch.arange(30, dtype=torch.float64) / 5))
    whole = svd(J)
    for part in (svd(J, 7, method="exact"), svd(J, tol=0.05, method="exact")):
        assert part.S.shape == (7,)
        assert (part.U.shape, part.Vh.shape) == ((30, 7), (7, 90))
        assert torch.equal(part.S, whole.S[:7])
        assert torch.allclose(part.Vh, whole.Vh[:7], atol=1e-11)
        assert torch.allclose(part.U, whole.U[:, :7], atol=1e-11)


def test_rows_are_made_once_and_one_product_checks_them():
    operator = Counting(matrix(20, 70, torch.linspace(2, 1, 20, dtype=torch.float64)).float())
    found = svd(operator)
    assert (operator.pulled, operator.pushed) == (20, 1)
    assert found.products == operator.total == 21
    assert found.products_by_precision == {"fp32": 21}
    assert found.noise is None


def test_noise_of_a_jacobian_is_measured_by_one_product_in_each_precision():
    known = next(each for each in BANK if each.name == "tanh network")
    found = svd(eqv.JacobianOperator(known.f, known.x))
    assert found.products_by_precision == {"fp32": 50, "fp64": 1}
    assert found.products == 51
    assert 0 < found.noise < 1e-5 * found.S[0]
    none = svd(eqv.JacobianOperator(known.f, known.x), noise_directions=0)
    assert none.noise is None
    assert none.products == 49
    assert (found.error >= none.error).all()


def test_a_network_whose_derivative_cancels_gets_wider_bounds():
    generator = torch.Generator().manual_seed(0)
    A, step = torch.randn(16, 60, generator=generator), 1e-3 * torch.randn(16, 60, generator=generator)
    first, second = torch.nn.Linear(60, 32, bias=False), torch.nn.Linear(32, 16, bias=False)
    first.weight.data = torch.cat([A, A + step])
    second.weight.data = torch.cat([torch.eye(16), -torch.eye(16)], dim=1)
    f, x = torch.nn.Sequential(first, second).requires_grad_(False), torch.rand(60, generator=generator)
    truth = torch.linalg.svdvals(reference_jacobian(f, x))
    for method in ("exact", "randomized"):
        found = svd(eqv.JacobianOperator(f, x), 6, method=method)
        assert_bounds_hold(found, truth)
        assert found.noise > 10 * 1e-6 * float(truth[0])
        assert found.resolution >= found.noise
        blind = svd(eqv.JacobianOperator(f, x), 6, method=method, noise_directions=0)
        assert blind.noise is None
        assert (found.residual > 3 * blind.residual).all()
        assert (found.lower < blind.lower).all()
