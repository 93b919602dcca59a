"""The block Krylov space itself: its bases, the products it keeps, its Ritz values."""

from __future__ import annotations

import pytest
import torch
from svd_cases import Counting, matrix

from equivengine.linalg.krylov import BlockKrylov
from equivengine.linalg.products import products_of
from equivengine.testing.maps import spectra

N, M = 60, 140
NAMES = ["fast decay", "very fast decay", "rank 10", "12 equal", "flat", "linear", "one dominant"]


def last(space, count):
    """Numbers of the last vectors."""
    return list(range(space.size - count, space.size))


def grown(J, block, steps, seed=0, capacity=N):
    space = BlockKrylov(products_of(J)[0], capacity, seed)
    space.grow(space.first_block(block))
    for _ in range(steps - 1):
        space.grow(space.next_block(last(space, block)))
    return space


def of(name, dtype=torch.float64):
    return matrix(N, M, spectra(N)[name][0]).to(dtype)


@pytest.mark.parametrize("block", [1, 4, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_both_bases_stay_orthonormal_and_every_product_is_right(name, dtype, block):
    J = of(name, dtype)
    space = grown(J, block, 36 // block)
    d = space.size
    Q, P = space._left[0, :d], space._right[0, :d].double()
    eye = torch.eye(d, dtype=torch.float64)
    assert (Q @ Q.T - eye).abs().max() < 1e-13 * d
    assert (P @ P.T - eye).abs().max() < (1e-6 if dtype == torch.float32 else 1e-13 * d)
    size = 1e-6 if dtype == torch.float32 else 1e-13
    assert torch.linalg.matrix_norm(Q @ J.double() - space._projected[0] @ P) <= size * d
    assert torch.linalg.matrix_norm(P @ J.double().T - space._pushed[0, :d]) <= size * d


@pytest.mark.parametrize("name", NAMES)
def test_ritz_values_rise_and_never_exceed_the_singular_values(name):
    J = of(name)
    truth = torch.linalg.svdvals(J)
    space = BlockKrylov(products_of(J)[0], N, 1)
    before = half = torch.zeros(0, dtype=torch.float64)
    while space.room:
        space.grow(space.next_block(last(space, 5)) if space.size else space.first_block(5))
        ritz = space.ritz()
        values = ritz.values[0]
        assert (values <= truth[: len(values)] + 1e-13 * truth[0]).all()
        assert (values[: len(before)] >= before - 1e-13 * truth[0]).all()
        # Another half step raises them, and no further than the truth.
        raised = values + ritz.rise[0]
        assert (raised <= truth[: len(values)] + 1e-13 * truth[0]).all()
        if len(before):
            assert (values[: len(before)] >= half - 1e-13 * truth[0]).all()
        before, half = values, raised
    assert torch.allclose(before, truth, rtol=0, atol=1e-13 * float(truth[0]))


def test_the_triplets_fulfil_what_is_said_of_them():
    J = of("linear")
    space = grown(J, 3, 8)
    ritz = space.ritz().leading(7)
    U, S = ritz.left[0], ritz.values[0]
    V = space.right_vectors(ritz)[0]
    assert torch.allclose(U @ J, S[:, None] * V, atol=1e-12)
    defects = torch.linalg.vector_norm(V @ J.T - S[:, None] * U, dim=1)
    assert torch.allclose(ritz.residual[0], defects / 2**0.5, atol=1e-12)
    assert torch.allclose(ritz.defect[0], defects.square().cumsum(0).sqrt(), atol=1e-12)
    truth = torch.linalg.svdvals(J)
    assert ((S[:, None] - truth).abs().amin(1) <= ritz.residual[0] + 1e-13).all()


def test_half_a_step_further_lies_between_two_steps():
    J = of("decay 1/sqrt(i)")
    space = grown(J, 3, 5)
    before, raised = space.ritz(), space.raised_ritz()
    space.grow(space.next_block(last(space, 3)))
    after = space.ritz()
    k = raised.values.shape[1]
    assert (raised.values >= before.values - 1e-13).all()
    assert (raised.values <= after.values[:, :k] + 1e-13).all()
    assert torch.allclose(raised.values, before.values + before.rise)
    # J v = s u holds there up to roundoff.
    V = raised.weights[0] @ grown(J, 3, 5)._right[0, :15]
    assert torch.allclose(V @ J.T, raised.values[0][:, None] * raised.left[0], atol=1e-12)


def test_a_block_that_is_exhausted_is_drawn_anew():
    J = torch.zeros(N, M, dtype=torch.float64)
    J[:10, :10] = torch.arange(10.0, 0, -1).diag()
    space = grown(J, 4, 8)
    assert space.size == 32
    # Four to begin with, ten vectors of the range, of which the fourth block holds the last two, and random ones.
    assert space.starts == 4 + 2 + 4 * 4
    values = space.ritz().values[0]
    assert torch.allclose(values[:10], torch.arange(10.0, 0, -1).double(), atol=1e-12)
    assert values[10:].max() < 1e-12


def test_one_start_shows_one_copy_of_a_multiple_value():
    J = of("12 equal")
    values = grown(J, 2, 10).ritz().values[0]
    assert int((values > 0.999).sum()) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [4, 60])
def test_completing_gives_the_whole_matrix_in_an_orthonormal_basis(dtype, block):
    operator = Counting(of("linear", dtype))
    space = BlockKrylov(products_of(operator)[0], N, 0)
    space.grow(space.first_block(block))
    if space.room:
        space.grow(space.next_block(last(space, block)))
    spent = operator.total
    Q, rows = space.complete()
    assert operator.total - spent == N - space.size
    assert (Q[0] @ Q[0].T - torch.eye(N)).abs().max() < 1e-12
    assert torch.linalg.matrix_norm(Q[0].T @ rows[0].double() - operator.J.double()) < (
        1e-5 if dtype == torch.float32 else 1e-12
    )


def test_products_are_counted_and_the_seed_decides():
    operator = Counting(of("linear"))
    space = BlockKrylov(products_of(operator)[0], N, 7)
    space.grow(space.first_block(4))
    space.grow(space.next_block(last(space, 4)))
    assert (operator.pulled, operator.pushed) == (8, 8)
    assert space.op.counts.total() == 16
    same, other = (BlockKrylov(products_of(operator)[0], N, seed).first_block(4) for seed in (7, 8))
    assert torch.equal(same[0], space._left[0, :4])
    assert not torch.allclose(same, other)


def test_what_rows_differ_from_the_products_by():
    J = of("linear")
    space = grown(J, 5, 2)
    rows = space._left[:, :10] @ J
    assert space.pulled_from(rows).max() < 1e-12
    rows[0, 3, 17] += 0.25
    assert torch.allclose(space.pulled_from(rows)[0, 3], torch.tensor(0.25, dtype=torch.float64))
