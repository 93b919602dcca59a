"""The exact SVD against torch.linalg.svd in float64, on spectra that are known by construction."""

from __future__ import annotations

import pytest
import torch

from equivengine.errors import NumericsError, UsageError
from equivengine.linalg import RESOLUTION, svd


def matrix(n: int, m: int, values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(m, n, generator=generator, dtype=torch.float64)).Q
    return left @ torch.diag(values) @ right.T


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (24, 24), (24, 400), (96, 1024)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_to_linalg_svd_down_to_the_resolution(n, m, dtype):
    values = torch.logspace(2, -2, n, dtype=torch.float64)
    J = matrix(n, m, values).to(dtype)
    found = svd(J)
    truth = torch.linalg.svdvals(J.to(torch.float64))
    resolved = truth > 10 * found.resolution
    assert resolved.any()
    # Gram: the square of s_i is off by roundoff of s_1^2; the float32 entries themselves are not in question here.
    bound = 1e-12 * truth[0] ** 2 / truth if dtype == torch.float32 else 1e-13 * truth[0] * torch.ones(n)
    assert ((found.S - truth).abs()[resolved] <= bound[resolved]).all()
    assert found.frobenius == pytest.approx(float(torch.linalg.matrix_norm(J.double())), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_right_vectors_are_orthonormal_and_reproduce_the_matrix(dtype):
    J = matrix(32, 500, torch.logspace(1, -4, 32, dtype=torch.float64)).to(dtype)
    found = svd(J)
    eye = torch.eye(32, dtype=torch.float64)
    assert (found.Vh @ found.Vh.T - eye).abs().max() < 1e-12
    assert (found.U.T @ found.U - eye).abs().max() < 1e-12
    rebuilt = found.U @ torch.diag(found.S) @ found.Vh
    assert torch.linalg.matrix_norm(rebuilt - J.double()) <= 2 * found.resolution * 32**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_deficient_matrices_keep_orthonormal_vectors_and_report_their_rank(dtype):
    values = torch.tensor([5.0, 1.0, 0.1, 0, 0, 0], dtype=torch.float64)
    found = svd(matrix(6, 80, values).to(dtype))
    assert found.rank == 3
    assert (found.Vh @ found.Vh.T - torch.eye(6, dtype=torch.float64)).abs().max() < 1e-12


def test_float64_resolves_what_float32_cannot():
    values = torch.tensor([1.0, 1e-3, 1e-9], dtype=torch.float64)
    J = matrix(3, 50, values)
    assert svd(J).S[2] == pytest.approx(1e-9, rel=1e-5)
    assert svd(J.float()).rank == 2
    assert svd(J).rank == 3


def test_without_vectors_the_values_are_the_same():
    J = matrix(20, 100, torch.logspace(0, -5, 20, dtype=torch.float64))
    for dtype in (torch.float32, torch.float64):
        a, b = svd(J.to(dtype)), svd(J.to(dtype), vectors=False)
        assert b.Vh is None
        assert torch.allclose(a.S, b.S, rtol=1e-9, atol=RESOLUTION[dtype] * 1e-2)


def test_panels_do_not_change_the_gram_matrix():
    from equivengine.linalg.svd import gram_matrix

    J = torch.randn(8, 1000)
    assert torch.allclose(gram_matrix(J, panel=7), J.double() @ J.double().T, rtol=1e-12)


def test_operators_are_written_out_and_their_products_counted():
    class Operator:
        shape = (3, 10)

        def dense(self):
            return torch.eye(3, 10)

    assert svd(Operator()).products == 3


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (torch.zeros(5, 3), UsageError),
        (torch.zeros(5), UsageError),
        (torch.zeros(3, 5, dtype=torch.float16), UsageError),
        (torch.full((3, 5), float("nan")), NumericsError),
        (torch.full((3, 5), float("inf")), NumericsError),
    ],
)
def test_bad_input_is_named(bad, error):
    with pytest.raises(error):
        svd(bad)
