"""What svd refuses, with one clear error, and what it reports as failed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from svd_cases import Counting, matrix

import equivengine as eqv
from equivengine.errors import NumericsError, UsageError
from equivengine.linalg import svd

J = matrix(30, 80, 10 ** (-torch.arange(30, dtype=torch.float64) / 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"rank": 0}, "rank is out of range", id="rank of 0"),
        pytest.param({"rank": -1}, "rank is out of range", id="negative rank"),
        pytest.param({"rank": 31}, r"1 to min\(n, m\) = 30", id="rank too large"),
        pytest.param({"tol": 1e-7}, "resolution of fp32", id="tol below fp32"),
        pytest.param({"rank": 3, "tol": 1e-7}, 'pass precision="fp64"', id="tol below fp32 with rank"),
        pytest.param({"tol": 0.0}, "tol is out of range", id="tol of 0"),
        pytest.param({"tol": -1e-3}, "tol is out of range", id="negative tol"),
        pytest.param({"tol": 1.0}, "tol is out of range", id="tol of 1"),
        pytest.param({"tol": 2.0}, "tol is out of range", id="tol of 2"),
        pytest.param({"tol": float("nan")}, "tol is out of range", id="tol of NaN"),
        pytest.param({"tol": float("inf")}, "tol is out of range", id="infinite tol"),
        pytest.param({"method": "lanczos"}, "unknown method", id="unknown method"),
        pytest.param({"method": "randomized"}, "how much is wanted", id="neither rank nor tol"),
        pytest.param({"rank": 3, "block": 0}, "block must be at least 1", id="block of 0"),
        pytest.param({"rank": 3, "max_products": 0}, "max_products must be at least 1", id="max_products of 0"),
        pytest.param({"rank": 3, "precision": "fp16"}, "unknown precision", id="fp16"),
        pytest.param({"rank": 3, "precision": "tf32"}, "unknown precision", id="tf32"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        svd(J.float(), **options)


def test_what_fp32_refuses_fp64_takes():
    assert svd(J.float(), 3, tol=1e-7, precision="fp64").status == "ok"
    with pytest.raises(UsageError, match="resolution of fp64"):
        svd(J, 3, tol=1e-15)


class Bare:
    shape = (4, 5)


class Complex(Bare):
    dtype = np.dtype("complex128")

    def __matmul__(self, other):
        raise AssertionError("not to be called")

    T = property(lambda self: self)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(5), "needs a matrix"),
        (torch.zeros(2, 3, 4), "needs a matrix"),
        (torch.zeros(3, 5, dtype=torch.float16), "float32 or float64"),
        (torch.zeros(3, 5, dtype=torch.int64), "float32 or float64"),
        (torch.zeros(3, 5, dtype=torch.complex64), "float32 or float64"),
        (torch.zeros(0, 5), "empty"),
        (torch.zeros(5, 0), "empty"),
        (np.zeros((3, 5), dtype=np.int32), "float32 or float64"),
        (Counting(torch.zeros(0, 4)), "empty"),
        (Complex(), "needs a real operator"),
        (Bare(), "cannot multiply"),
        (object(), "operator with a shape"),
        (None, "operator with a shape"),
        ([[1.0, 2.0]], "operator with a shape"),
    ],
)
def test_what_is_no_real_matrix_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        svd(given)


# -- products with J and with the transpose of another matrix ---------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="auto"),
        pytest.param({"rank": 3, "method": "exact"}, id="exact"),
        pytest.param({"rank": 3, "method": "randomized"}, id="randomized"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("tall", [pytest.param(False, id="wide"), pytest.param(True, id="tall")])
def test_a_wrong_adjoint_is_noticed(dtype, options, tall):
    other = matrix(30, 80, torch.ones(30, dtype=torch.float64), seed=5)
    permuted = J[torch.randperm(30, generator=torch.Generator().manual_seed(0))]
    for transpose in (other, permuted, -J, 1.01 * J):
        right, wrong = (J.T, transpose.T) if tall else (J, transpose)
        with pytest.raises(UsageError, match="do not belong to one matrix") as caught:
            svd(Counting(right.to(dtype).contiguous(), wrong.to(dtype).contiguous()), **options)
        assert "assert_operator_matches" in str(caught.value)


def test_roundoff_is_no_wrong_adjoint():
    noisy = (J * (1 + 1e-6 * torch.randn(J.shape, generator=torch.Generator().manual_seed(0)))).float()
    for method in ("exact", "randomized"):
        assert svd(Counting(J.float(), noisy), 3, method=method).status == "ok"


# -- products that are not finite -------------------------------------------------------------------------------------


def assert_failed(found, rank, n, m):
    assert found.status == "failed"
    assert "NaN or infinity" in found.message
    assert found.subspace == "not_identifiable"
    assert (found.U.shape, found.S.shape, found.Vh.shape) == ((n, rank), (rank,), (rank, m))
    for array in (found.U, found.S, found.Vh, found.lower, found.residual, found.error):
        assert array.isnan().all()
    with pytest.raises(NumericsError, match="could not be computed"):
        found.require()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", ["exact", "randomized", "auto"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_matrix_that_is_not_finite_fails(bad, method, dtype):
    spoilt = J.to(dtype, copy=True)
    spoilt[3, 7] = bad
    assert_failed(svd(spoilt, 2, method=method), 2, 30, 80)
    assert_failed(svd(spoilt.T, 2, method=method), 2, 80, 30)
    assert svd(spoilt, 2, method=method, vectors=False).Vh is None


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("method", ["exact", "randomized"])
def test_a_product_that_is_not_finite_ends_the_search(call, method):
    def spoil(number, product):
        product = product.clone()
        if number == call:
            product[-1, -1] = float("nan")
        return product

    operator = Counting(J, spoil=spoil)
    found = svd(operator, 4, method=method)
    if method == "exact" and call > 2:  # all rows at once, and one product to check them
        assert found.status == "ok"
        return
    assert_failed(found, 4, 30, 80)
    assert operator.calls == call
    assert found.products == operator.total
    assert found.method == method


def test_a_model_whose_derivative_is_not_finite_fails():
    found = svd(eqv.JacobianOperator(lambda x: x[:, :3].abs().sqrt(), torch.tensor([0.0, 1.0, 4.0, 9.0])))
    assert found.status == "failed"


def test_a_result_that_did_not_fail_is_handed_on():
    found = svd(J)
    assert found.require() is found
    short = svd(J, 6, tol=1e-10, method="randomized", max_products=8)
    assert short.status == "not_converged"
    assert short.require() is short
    assert torch.isfinite(short.S).all()
