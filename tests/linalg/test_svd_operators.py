"""Everything that svd can multiply with gives the same: arrays, Jacobians, batches, operators of others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from svd_cases import Counting, assert_orthonormal, matrix

import equivengine as eqv
from equivengine.linalg import svd
from equivengine.testing import known_maps

J = matrix(40, 130, 10 ** (-torch.arange(40, dtype=torch.float64) / 8))
TRUTH = torch.linalg.svdvals(J)


class Columns:
    """`@` and `.T @` of columns, as a LinearOperator of SciPy has them, or of torch tensors; no jvp."""

    def __init__(self, dense, dtype):
        self.dense, self.dtype, self.shape = dense, dtype, tuple(dense.shape)

    def __matmul__(self, columns):
        assert type(columns) is type(self.dense)
        assert columns.ndim == 2
        return self.dense @ columns

    @property
    def T(self):
        return Columns(self.dense.T, self.dtype)


class Shaped(Counting):
    """jvp and vjp without a dtype: float32 then."""

    def __init__(self, dense):
        super().__init__(dense.float())
        del self.dtype


def scipy_operator(dtype):
    linalg = pytest.importorskip("scipy.sparse.linalg")
    dense = J.numpy().astype(dtype)
    return linalg.LinearOperator(
        dense.shape, matvec=lambda v: dense @ v, rmatvec=lambda u: dense.T @ u, dtype=dense.dtype
    )


OPERATORS = {
    "torch fp64": lambda: J,
    "torch fp32": lambda: J.float(),
    "torch with strides": lambda: J.T.contiguous().T,
    "requires grad": lambda: J.clone().requires_grad_(True),
    "numpy fp64": lambda: J.numpy(),
    "numpy fp32": lambda: J.numpy().astype(np.float32),
    "jvp and vjp": lambda: Counting(J),
    "jvp and vjp without dtype": lambda: Shaped(J),
    "@ of torch": lambda: Columns(J, torch.float64),
    "@ of torch fp32": lambda: Columns(J.float(), torch.float32),
    "@ of numpy": lambda: Columns(J.numpy(), np.dtype("float64")),
    "scipy fp64": lambda: scipy_operator(np.float64),
    "scipy fp32": lambda: scipy_operator(np.float32),
    "Jacobian": lambda: eqv.JacobianOperator(lambda x: x @ J.float().T, torch.zeros(130)),
    "Jacobian of an image": lambda: eqv.JacobianOperator(lambda x: x.flatten(1) @ J.float().T, torch.zeros(2, 5, 13)),
    "Jacobian fp64": lambda: eqv.JacobianOperator(lambda x: x @ J.T, torch.zeros(130).double(), precision="fp64"),
}


@pytest.mark.parametrize("method", ["exact", "randomized"])
@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_gives_the_same(name, method):
    found = svd(OPERATORS[name](), 5, method=method, noise_directions=0)
    assert found.status == "ok"
    assert (found.U.shape, found.S.shape, found.Vh.shape) == ((40, 5), (5,), (5, 130))
    assert (found.U.dtype, found.S.dtype) == (torch.float64, torch.float64)
    # float32 holds this matrix only so well.
    assert ((found.S - TRUTH[:5]).abs() <= 1e-3 * TRUTH[:5]).all()
    assert (found.lower <= TRUTH[:5]).all()
    assert ((found.S - TRUTH[:5]).abs() <= found.error).all()
    fine = "64" in name or name in ("torch with strides", "requires grad", "jvp and vjp", "@ of torch", "@ of numpy")
    assert found.Vh.dtype == (torch.float64 if fine else torch.float32)
    assert_orthonormal(found, 1e-12, 1e-12 if fine else 1e-6)
    assert not found.Vh.requires_grad


@pytest.mark.parametrize("precision", ["fp64", "bf16"])
def test_a_dense_matrix_may_be_taken_in_another_precision(precision):
    found = svd(J.float(), 3, tol=0.05, method="randomized", precision=precision, noise_directions=0)
    assert set(found.products_by_precision) == {precision}
    truth = torch.linalg.svdvals(J.float().double())
    assert ((found.S - truth[:3]).abs() <= found.error).all()
    assert found.resolution == pytest.approx({"fp64": 1e-14, "bf16": 3e-2}[precision] * float(found.S[0]))


# -- tall matrices ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "randomized"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("vectors", [True, False])
def test_a_tall_matrix_gives_the_transposed_result(method, dtype, vectors):
    wide = svd(J.to(dtype), 5, method=method)
    for given in (J.to(dtype).T, J.to(dtype).T.contiguous(), Counting(J.to(dtype).T)):
        tall = svd(given, 5, method=method, vectors=vectors)
        assert tall.U.shape == (130, 5)
        assert tall.U.dtype == torch.float64
        assert torch.allclose(tall.S, wide.S, rtol=1e-10 if dtype == torch.float64 else 1e-6)
        assert torch.allclose(tall.U.to(dtype), wide.Vh.T, atol=1e-5)
        if vectors:
            assert tall.Vh.dtype == dtype
            assert torch.allclose(tall.Vh, wide.U.T.to(dtype), atol=1e-5)
        else:
            assert tall.Vh is None


def test_a_tall_jacobian_is_written_by_columns():
    operator = Counting(J.T.contiguous())
    found = svd(operator, 5, method="exact")
    assert (operator.pushed, operator.pulled) == (40, 1)
    assert found.products == 41


# -- batches ----------------------------------------------------------------------------------------------------------

NETWORK = known_maps(48, 160, seed=5)[-2]
XS = torch.stack([NETWORK.x, NETWORK.x.flip(0), 0.3 * NETWORK.x, NETWORK.x.square()])


def batch(indices, **options):
    return eqv.JacobianOperator(NETWORK.f, XS[list(indices)], batched=True, **options)


@pytest.mark.parametrize(("rank", "method"), [(None, "exact"), (4, "exact"), (4, "randomized")])
def test_each_input_of_a_batch_is_as_it_is_alone(rank, method):
    together = svd(batch(range(4)), rank, method=method)
    assert together.status == "ok"
    r = together.S.shape[1]
    assert together.U.shape == (4, 48, r)
    assert together.Vh.shape == (4, r, 160)
    assert together.lower.shape == together.residual.shape == together.error.shape == (4, r)
    assert_orthonormal(together, 1e-12, 1e-6)
    for i in range(4):
        alone = svd(eqv.JacobianOperator(NETWORK.f, XS[i]), rank, method=method)
        assert ((together.S[i] - alone.S).abs() <= together.error[i] + alone.error).all()
        if method == "exact":
            assert torch.allclose(together.S[i], alone.S, rtol=0, atol=1e-6 * float(alone.S[0]))
            assert together.frobenius[i] == pytest.approx(float(alone.frobenius), rel=1e-6)


@pytest.mark.parametrize("method", ["exact", "randomized"])
def test_order_and_company_in_a_batch_do_not_matter(method):
    a = svd(batch([0, 1, 2]), 4, method=method, noise_directions=0)
    b = svd(batch([2, 3, 0]), 4, method=method, noise_directions=0)
    for one, other in ((0, 2), (2, 0)):
        assert ((a.S[one] - b.S[other]).abs() <= a.error[one] + b.error[other]).all()
    again = svd(batch([2, 1, 0]), 4, method=method, noise_directions=0)
    # The same company in another order makes the same number of steps.
    assert torch.allclose(a.S, again.S.flip(0), rtol=1e-5)
    assert a.products == again.products


def test_a_batch_counts_products_for_each_matrix():
    found = svd(batch(range(4)), noise_directions=0)
    assert found.products == 49


@pytest.mark.parametrize(("rank", "method"), [(None, "exact"), (4, "randomized")])
def test_chunks_of_directions_do_not_matter(rank, method):
    whole = svd(batch([0, 1]), rank, method=method)
    for size in (1, 5, 48):
        chunked = svd(batch([0, 1], chunk_size=size), rank, method=method)
        scale = float(whole.S.max())
        assert torch.allclose(whole.S, chunked.S, rtol=1e-5, atol=1e-6 * scale)
        assert whole.products == chunked.products
