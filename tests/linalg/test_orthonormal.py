"""Orthonormal rows against QR in float64: orthogonality, spans, reconstruction, rank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equivengine.errors import NumericsError, UsageError
from equivengine.linalg import orthonormal
from equivengine.linalg.orthonormal import orthonormalise
from equivengine.ops import extension

FLOAT32, FLOAT64 = torch.float32, torch.float64
#: Largest entries of |Q Q^T - 1|; and of |X - L Q| over |X|, in the worst row.
ORTHOGONAL = {FLOAT32: 5e-7, FLOAT64: 2e-14}
REBUILT = {FLOAT32: 1e-6, FLOAT64: 1e-14}
dtypes = pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=["float32", "float64"])


def orthogonal(k: int, m: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(m, k, generator=generator, dtype=FLOAT64)).Q.T


def block(k: int, m: int, condition: float, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Rows of this condition number, singular values in a geometric sequence; before it is rounded to `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = condition ** -torch.linspace(0, 1, k, dtype=FLOAT64)
    return (orthogonal(k, k, generator) * spectrum @ orthogonal(k, m, generator)).to(dtype)


def gap(Q: Tensor) -> float:
    wide = Q.double()
    return float((wide @ wide.mT - torch.eye(Q.shape[-2], dtype=FLOAT64)).abs().max())


def rebuilt(X: Tensor, found: orthonormal.Orthonormal) -> float:
    left = (X.double() - found.L @ found.Q.double()).norm(dim=-1)
    return float((left / X.double().norm(dim=-1).clamp_min(1e-300)).max())


def assert_orthonormalises(X: Tensor, found: orthonormal.Orthonormal) -> None:
    assert found.Q.shape == X.shape
    assert found.Q.dtype == X.dtype
    assert gap(found.Q) <= ORTHOGONAL[X.dtype]
    # What replaced rows lose besides roundoff: the part of each that counts as nothing.
    lost = orthonormal._DEPENDENT * torch.finfo(X.dtype).eps * float(found.replaced.sum()) ** 0.5
    assert rebuilt(X, found) <= REBUILT[X.dtype] + 1.5 * lost
    assert not found.L.triu(1).any()
    assert not found.L.mT[found.replaced].any()


@dtypes
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e3, 1e6, 1e9, 1e12, 1e15])
@pytest.mark.parametrize(("k", "m"), [(8, 500), (64, 3000), (130, 1000)])
def test_orthonormal_for_every_condition_number(k, m, condition, dtype):
    X = block(k, m, condition, dtype)
    found = orthonormalise(X)
    assert_orthonormalises(X, found)
    if condition < 1e-2 / torch.finfo(dtype).eps:
        assert found.rank == k


@dtypes
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_leading_rows_span_what_the_leading_rows_of_the_block_span(dtype, condition):
    k, m = 24, 600
    X = block(k, m, condition, dtype)
    found = orthonormalise(X)
    Q = found.Q.double()
    truth = torch.linalg.qr(X.double().mT).Q.mT
    for j in (1, 2, 7, 23, 24):
        outside = Q[:j] - Q[:j] @ truth[:j].mT @ truth[:j]
        # Roundoff of X moves the span of its rows by their condition number times as much.
        assert outside.norm() <= 4 * k * torch.finfo(dtype).eps * condition
    assert found.L.diagonal().gt(0).all()


@settings(max_examples=40, deadline=None)
@given(
    k=st.integers(1, 30),
    extra=st.integers(0, 40),
    exponent=st.floats(0, 15),
    dtype=st.sampled_from([FLOAT32, FLOAT64]),
    seed=st.integers(0, 10_000),
)
def test_orthonormal_for_every_shape(k, extra, exponent, dtype, seed):
    X = block(k, k + extra, 10.0**exponent, dtype, seed)
    assert_orthonormalises(X, orthonormalise(X))


@dtypes
def test_the_lengths_of_rows_do_not_matter(dtype):
    X = block(10, 300, 100.0, dtype)
    base = orthonormalise(X)
    powers = torch.tensor([0, 30, -30, 60, -60, 100, -100, 10, -10, 3], dtype=dtype)
    found = orthonormalise(X * powers.exp2()[:, None])
    assert found.rank == 10
    assert (found.Q - base.Q).abs().max() <= 1e3 * torch.finfo(dtype).eps
    assert gap(found.Q) <= ORTHOGONAL[dtype]
    subnormal = orthonormalise(X * torch.finfo(dtype).tiny)
    assert subnormal.rank == 10
    assert gap(subnormal.Q) <= ORTHOGONAL[dtype]


@dtypes
def test_dependent_rows_are_replaced_and_the_rank_is_told(dtype):
    k, m = 20, 700
    X = block(k, m, 10.0, dtype)
    X[3] = X[1]
    X[4] = 0
    X[9] = 3 * X[0] - X[2] + X[8]
    X[19] = -1e-6 * X[3]
    found = orthonormalise(X)
    assert found.replaced.nonzero().flatten().tolist() == [3, 4, 9, 19]
    assert found.rank == 16
    assert_orthonormalises(X, found)
    kept = found.Q.double()[~found.replaced]
    rows = X.double()
    assert (rows - rows @ kept.mT @ kept).norm() <= 1e3 * torch.finfo(dtype).eps * rows.norm()
    # Random directions, not the roundoff that was left: no entry stands out.
    assert found.Q[found.replaced].abs().max() <= 6 / m**0.5
    assert torch.equal(orthonormalise(X).Q, found.Q)


@dtypes
def test_a_block_of_zeros_and_a_square_block_of_rank_one(dtype):
    zeros = torch.zeros(5, 60, dtype=dtype)
    found = orthonormalise(zeros)
    assert found.rank == 0
    assert_orthonormalises(zeros, found)
    ones = torch.ones(12, 12, dtype=dtype)
    found = orthonormalise(ones)
    assert found.rank == 1
    assert_orthonormalises(ones, found)


def test_rows_drawn_like_the_replacements_are_no_trap():
    generator = torch.Generator().manual_seed(orthonormal._FILL_SEED)
    X = torch.randn(4, 200, generator=generator)
    X[3] = X[2]
    found = orthonormalise(X)
    assert found.rank == 3
    assert_orthonormalises(X, found)


@dtypes
def test_ill_conditioned_rows_without_a_small_pivot(dtype):
    """Kahan's matrix: condition 1e10 here, though every row is far from those before it."""
    k, m = 60, 200
    c, s = 0.6, 0.8
    kahan = torch.eye(k, dtype=FLOAT64) - c * torch.ones(k, k, dtype=FLOAT64).tril(-1)
    kahan = kahan * (s ** torch.arange(k, dtype=FLOAT64)).flip(0)[:, None]
    X = (kahan @ orthogonal(k, m, torch.Generator().manual_seed(0))).to(dtype)
    assert torch.linalg.cond((X / X.norm(dim=1, keepdim=True)).double()) > 1e6
    assert_orthonormalises(X, orthonormalise(X))


@dtypes
def test_one_row_and_no_row(dtype):
    X = block(1, 37, 1.0, dtype) * 5
    found = orthonormalise(X)
    assert_orthonormalises(X, found)
    assert float(found.L) == pytest.approx(5, rel=1e-6)
    none = orthonormalise(X[:0])
    assert (none.Q.shape, none.L.shape, int(none.rank)) == ((0, 37), (0, 0), 0)


@dtypes
def test_batches_are_block_by_block(dtype):
    X = torch.stack([block(6, 80, 10.0 ** (2 * i), dtype, i) for i in range(6)])
    X[2, 4] = X[2, 1]
    found = orthonormalise(X.unflatten(0, (2, 3)))
    assert found.Q.shape == (2, 3, 6, 80)
    assert found.rank.flatten().tolist() == [int(orthonormalise(each).rank) for each in X]
    for i in range(6):
        one = orthonormalise(X[i])
        assert torch.equal(found.Q.flatten(0, 1)[i], one.Q)
        assert torch.equal(found.L.flatten(0, 1)[i], one.L)


@dtypes
def test_rows_may_lie_anywhere(dtype):
    X = block(9, 301, 1e3, dtype)
    expected = orthonormalise(X).Q
    holder = torch.full((9, 310), torch.nan, dtype=dtype)
    view = holder[:, 4:305]
    view.copy_(X)
    assert torch.equal(orthonormalise(view).Q, expected)
    assert torch.equal(orthonormalise(X.mT.contiguous().mT).Q, expected)
    assert torch.equal(view, X)
    assert orthonormalise(view, out=view).Q is view
    assert torch.equal(view, expected)
    assert holder[:, :4].isnan().all()
    assert holder[:, 305:].isnan().all()


@pytest.mark.parametrize("kind", ["well", "ill", "dependent", "tiny"])
def test_in_place_is_the_same(kind):
    X = block(12, 400, 1e8 if kind == "ill" else 10.0, FLOAT32)
    X[5] = X[2] if kind == "dependent" else X[5]
    X *= 1e-30 if kind == "tiny" else 1
    expected = orthonormalise(X)
    found = orthonormalise(X, out=X)
    assert found.Q is X
    assert torch.equal(X, expected.Q)
    assert torch.equal(found.L, expected.L)


def test_orthonormal_rows_are_left_alone():
    Q = orthonormalise(block(16, 500, 1e3, FLOAT32)).Q
    again = orthonormalise(Q)
    assert torch.equal(again.Q, Q)
    assert torch.equal(again.L, torch.eye(16, dtype=FLOAT64))


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e8])
def test_no_bit_depends_on_the_number_of_threads(condition):
    if not extension.load().loaded:
        pytest.skip("the plain formulas are PyTorch's, whose sums depend on the number of threads")
    before = torch.get_num_threads()
    X = block(260, 3000, condition, FLOAT32)
    X[77] = X[3]
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(orthonormalise(X).Q)
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_an_error_and_leaves_the_rows(bad):
    X = block(4, 50, 1.0, FLOAT32)
    X[2, 7] = bad
    before = X.clone()
    with pytest.raises(NumericsError, match="NaN or infinity"):
        orthonormalise(X, out=X)
    assert torch.equal(X.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize(
    ("X", "out", "message"),
    [
        pytest.param(torch.ones(3, 2), None, "no more rows than columns", id="more rows than columns"),
        pytest.param(torch.ones(3), None, "no more rows than columns", id="a vector"),
        pytest.param(torch.ones(2, 3, dtype=torch.float16), None, "float32 or float64", id="float16"),
        pytest.param(torch.ones(2, 3), torch.ones(2, 4), "out does not fit", id="out of another shape"),
        pytest.param(torch.ones(2, 3), torch.ones(2, 3, dtype=FLOAT64), "out does not fit", id="out of another dtype"),
        pytest.param(torch.ones(2, 3), torch.ones(3, 2).mT, "dense along m", id="out of another layout"),
    ],
)
def test_what_does_not_fit_is_refused(X, out, message):
    with pytest.raises(UsageError, match=message):
        orthonormalise(X, out=out)
