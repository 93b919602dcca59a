"""Block Krylov on maps with known spectra: what its bounds promise, what it finds, and what it costs."""

from __future__ import annotations

import pytest
import torch
from svd_cases import Counting, assert_bounds_hold, assert_orthonormal, matrix

from equivengine.linalg import svd
from equivengine.testing import known_maps
from equivengine.testing.maps import spectra

N, M = 96, 300
BANK = {known.name: known for known in known_maps(N, M, seed=2)}


def spectrum(name, n=N):
    return spectra(n)[name][0]


def of(name, seed=0, n=N, m=M):
    return matrix(n, m, spectrum(name, n), seed)


@pytest.mark.parametrize("rank", [1, 5, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BANK)
def test_values_vectors_and_bounds_on_the_bank(name, dtype, rank):
    J = BANK[name].jacobian.to(dtype)
    truth = torch.linalg.svdvals(J.double())
    found = svd(J, rank, method="randomized")
    assert found.method == "randomized"
    assert found.S.shape == (rank,)
    assert (found.S.diff() <= 0).all()
    assert_orthonormal(found, 1e-12, 1e-6 if dtype == torch.float32 else 1e-12)
    floor = (1e-6 if dtype == torch.float32 else 1e-14) * truth[0]
    assert (found.lower <= truth[:rank]).all()
    assert ((found.S[:, None] - truth).abs().amin(1) <= found.residual).all()
    if found.status == "ok":
        # The accuracy that was asked for, 1e-3 of each value; below the resolution there is nothing to know.
        assert ((found.S - truth[:rank]).abs() <= 1e-3 * truth[:rank] + 2 * floor).all()
    # Residuals are those of the triplets that are returned.
    forward = torch.linalg.vector_norm(J.double() @ found.Vh.double().T - found.U * found.S, dim=0)
    reverse = torch.linalg.vector_norm(J.double().T @ found.U - found.Vh.double().T * found.S, dim=0)
    assert (reverse <= floor).all()
    assert (forward / 2**0.5 <= found.residual + floor).all()
    # The entry of largest magnitude of every left vector is positive.
    assert (found.U.gather(0, found.U.abs().argmax(0, keepdim=True)) > 0).all()


@pytest.mark.parametrize("limit", [4, 12, 40])
@pytest.mark.parametrize("name", ["linear", "clusters of 10", "flat within 1e-2", "decay 1/i", "tanh network"])
def test_lower_and_residual_hold_wherever_the_search_is_stopped(name, limit):
    for seed in range(3):
        J = BANK[name].jacobian
        found = svd(J, 12, tol=1e-9, method="randomized", seed=seed, max_products=limit)
        assert found.status == "not_converged"
        assert found.products <= limit + 2 * 2
        assert "max_products" in found.message
        truth = torch.linalg.svdvals(J)
        r = len(found.S)
        assert (found.lower <= truth[:r]).all()
        assert ((found.S[:, None] - truth).abs().amin(1) <= found.residual).all()


@pytest.mark.parametrize("name", ["fast decay", "decay 1/sqrt(i)", "pairs", "GELU network"])
def test_a_smaller_tolerance_is_reached(name):
    J = BANK[name].jacobian
    truth = torch.linalg.svdvals(J)
    spent = []
    for tol in (1e-2, 1e-5, 1e-9):
        found = svd(J, 6, tol=tol, method="randomized")
        assert found.status == "ok"
        assert ((found.S - truth[:6]).abs() <= tol * truth[:6]).all()
        spent.append(found.products)
    assert spent[0] < spent[2]


@pytest.mark.parametrize(
    ("name", "tol", "count"), [("fast decay", 0.03, 25), ("decay 1/i", 0.095, 10), ("rank 10", 0.2, 10)]
)
@pytest.mark.parametrize("method", ["randomized", "exact", "auto"])
def test_a_threshold_finds_all_values_above_it(name, tol, count, method):
    J = of(name)
    found = svd(J, tol=tol, method=method)
    assert found.status == "ok"
    assert found.S.shape == (count,)
    assert found.S.min() > tol * found.S.max()
    truth = spectrum(name)
    assert ((found.S - truth[:count]).abs() <= 1e-3 * truth[0]).all()
    assert_bounds_hold(found, torch.linalg.svdvals(J))


def test_a_rank_beyond_the_matrix_rank_yields_zeros():
    found = svd(of("rank 10"), 16, method="randomized")
    assert found.status == "ok"
    assert found.rank == 10
    assert (found.S[10:] <= found.resolution).all()
    assert_orthonormal(found, 1e-12, 1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rank", [1, 12, 14])
def test_more_copies_of_a_value_than_the_block_holds_are_found(rank, seed):
    # Twelve equal values, and blocks of two: a Krylov space from two vectors holds two of them at most.
    J = of("12 equal", seed)
    found = svd(J, rank, method="randomized", seed=seed, block=2)
    assert found.status == "ok"
    assert ((found.S - spectrum("12 equal")[:rank]).abs() <= found.error).all()
    if rank < 12:
        assert found.subspace == "not_identifiable"
    elif rank == 12:
        assert found.subspace == "identified"
        span = torch.linalg.svd(J).Vh[:12]
        away = torch.linalg.matrix_norm(found.Vh - found.Vh @ span.T @ span, 2)
        assert away <= found.subspace_error


@pytest.mark.parametrize("name", ["flat", "flat within 1e-4", "flat within 1e-2"])
def test_flat_spectra_have_no_leading_subspace(name):
    for rank in (1, 7):
        found = svd(of(name), rank, method="randomized")
        assert found.subspace == "not_identifiable"
        assert found.subspace_error == 1.0
        assert_bounds_hold(found, torch.linalg.svdvals(of(name)))
    if name != "flat within 1e-2":  # whose neighbors differ by 1e-4, which float32 tells apart
        assert svd(of(name).float(), 7, method="exact").subspace == "not_identifiable"


@pytest.mark.parametrize("name", ["fast decay", "decay 1/i", "decay 1/sqrt(i)", "condition 1e12", "six outliers"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_identified_subspace_is_within_its_error(name, dtype):
    J = of(name).to(dtype)
    found = svd(J, 6, method="randomized")
    assert found.subspace == "identified"
    assert found.subspace_error <= 0.1
    span = torch.linalg.svd(J.double(), full_matrices=False).Vh[:6]
    V = torch.linalg.qr(found.Vh.double().T).Q.T
    assert torch.linalg.matrix_norm(V - V @ span.T @ span, 2) <= found.subspace_error


@pytest.mark.parametrize("block", [1, 2, 5, 16, 500])
def test_any_block_finds_the_same(block):
    J = of("decay 1/sqrt(i)")
    found = svd(J, 8, method="randomized", block=block)
    assert found.status == "ok"
    assert_bounds_hold(found, torch.linalg.svdvals(J))


def test_the_seed_alone_decides_the_bits():
    J = of("decay 1/sqrt(i)").float()
    truth = torch.linalg.svdvals(J.double())
    first, again, other = (svd(J, 8, method="randomized", seed=seed) for seed in (3, 3, 4))
    for name in ("U", "S", "Vh", "lower", "residual", "error"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert first.products == again.products
    assert not torch.equal(first.S, other.S)
    assert ((first.S - other.S).abs() <= first.error + other.error).all()
    assert_bounds_hold(other, truth)


@pytest.mark.parametrize("method", ["randomized", "exact", "auto"])
@pytest.mark.parametrize("name", ["fast decay", "linear"])
def test_every_product_is_counted(method, name):
    operator = Counting(of(name).float())
    found = svd(operator, 4, method=method)
    assert found.products == operator.total
    assert found.products_by_precision == {"fp32": operator.total}
    if method == "randomized":
        assert operator.pushed == operator.pulled


def test_no_basis_vector_is_multiplied_twice():
    seen = []

    class Recording(Counting):
        def vjp(self, u):
            seen.extend(u.double())
            return super().vjp(u)

    svd(Recording(of("decay 1/sqrt(i)")), 10, method="randomized")
    Q = torch.stack(seen)
    assert (Q @ Q.T - torch.eye(len(Q))).abs().max() < 1e-12


# -- auto -------------------------------------------------------------------------------------------------------------


def test_auto_searches_where_few_values_of_many_are_wanted():
    operator = Counting(of("fast decay").float())
    found = svd(operator, 4)
    assert found.method == "randomized"
    assert found.products < N / 2
    assert "converged after" in found.message
    assert str(N) in found.message


def test_auto_writes_the_matrix_out_where_that_is_cheaper_from_the_start():
    operator = Counting(of("fast decay").float())
    found = svd(operator, 30)
    assert found.method == "exact"
    assert found.products == N + 1
    assert "at least" in found.message
    whole = svd(operator)
    assert whole.method == "exact"
    assert "whole spectrum" in whole.message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["linear", "one dominant"])
def test_auto_completes_the_rows_it_has_where_the_search_would_take_longer(name, dtype):
    operator = Counting(of(name, n=160, m=200).to(dtype))
    found = svd(operator, 16, tol=1e-6)
    assert (found.method, found.status) == ("exact", "ok")
    assert "were still to come" in found.message
    # Every vector of a basis of R^160 went through J^T once, and what the search had spent through J.
    assert operator.pulled == 160
    assert 80 < 2 * operator.pushed < 160
    assert found.products == operator.total
    truth = torch.linalg.svdvals(operator.J.double())
    assert_bounds_hold(found, truth)
    assert_orthonormal(found, 1e-12, 1e-6 if dtype == torch.float32 else 1e-12)
    direct = svd(Counting(operator.J), 16, method="exact")
    assert ((found.S - direct.S).abs() <= found.error).all()
    assert found.frobenius == pytest.approx(float(direct.frobenius), rel=1e-6)


def test_memory_that_holds_few_vectors_is_no_excuse_for_a_wrong_claim(monkeypatch):
    from equivengine.linalg import randomized

    J = of("linear")
    monkeypatch.setattr(randomized, "free_bytes", lambda device: 12 * (8 * M + 16 * N) * 4 // 3 + 64)
    found = svd(Counting(J), 8, tol=1e-6, method="randomized")
    assert found.status == "not_converged"
    assert "memory holds no more than 12 vectors" in found.message
    truth = torch.linalg.svdvals(J)
    assert ((found.S[:, None] - truth).abs().amin(1) <= found.residual).all()
    assert (found.error > 0.01).any()
