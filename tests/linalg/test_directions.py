"""Random directions: any chunking gives the same numbers, and the numbers have the law that they are to have."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equivengine.errors import UsageError
from equivengine.linalg import gaussian_directions, sign_directions

DRAWS = [gaussian_directions, sign_directions, partial(sign_directions, sparsity=7)]
draws = pytest.mark.parametrize("draw", DRAWS, ids=["gaussian", "sign", "sparse sign"])


@settings(max_examples=60, deadline=None)
@given(
    draw=st.sampled_from(DRAWS),
    key=st.integers(0, 2**64 - 1),
    start=st.integers(0, 2**64 - 9),
    cut=st.integers(0, 9),
    dim=st.integers(0, 300),
    data=st.data(),
)
def test_any_chunking_gives_the_same_numbers(draw, key, start, cut, dim, data):
    column = data.draw(st.integers(0, dim))
    whole = draw(key, start, 9, dim)
    assert whole.shape == (9, dim)
    above, below = draw(key, start, cut, dim), draw(key, start + cut, 9 - cut, dim)
    assert torch.equal(whole, torch.cat([above, below]))
    left, right = draw(key, start, 9, column), draw(key, start, 9, dim - column, offset=column)
    assert torch.equal(whole, torch.cat([left, right], dim=1))


@draws
def test_dtype_does_not_change_the_numbers(draw):
    assert torch.equal(draw(3, 4, 5, 1000, dtype=torch.float32).double(), draw(3, 4, 5, 1000))


@draws
def test_streams_vectors_and_coordinates_differ(draw):
    everything = torch.cat([draw(key, start, 2, 4000) for key in (0, 1, 2**32, 2**63) for start in (0, 2**32, 2**63)])
    assert len({tuple(row) for row in everything.tolist()}) == len(everything)
    far = draw(0, 0, 1, 4000, offset=2**34)
    assert not torch.equal(far, everything[:1])


@draws
def test_moments_are_those_of_independent_numbers_with_mean_0_and_variance_1(draw):
    numbers = draw(1, 0, 100, 10_000).flatten()
    count = numbers.numel()
    kurtosis = {0: 3, 1: 1, 2: 7}[DRAWS.index(draw)]
    assert numbers.mean().abs() < 4 / count**0.5
    spread = numbers.square().var().sqrt()
    assert (numbers.square().mean() - 1).abs() <= 4 * spread / count**0.5 + 1e-7
    fourth = numbers.pow(4)
    assert (fourth.mean() - kurtosis).abs() <= 4 * fourth.var().sqrt() / count**0.5 + 1e-6
    assert numbers.pow(3).mean().abs() <= 4 * numbers.pow(6).mean().sqrt() / count**0.5


def test_a_million_numbers_are_normal_by_kolmogorov_and_smirnov():
    numbers = gaussian_directions(2, 0, 8, 125_000).flatten().sort().values
    count = numbers.numel()
    rank = torch.arange(count + 1, dtype=torch.float64) / count
    law = torch.special.ndtr(numbers)
    distance = torch.maximum((law - rank[:-1]).abs(), (rank[1:] - law).abs()).max()
    assert distance < 1.95 / count**0.5  # exceeded once in a thousand such samples
    assert 4.2 < numbers.abs().max() < 6.67


def test_the_share_of_entries_that_are_not_zero():
    for sparsity in (1, 2, 3, 100):
        entries = sign_directions(5, 0, 10, 100_000, sparsity=sparsity)
        wanted = 1 / sparsity
        assert abs((entries != 0).double().mean() - wanted) <= 4 * (wanted / 1e6) ** 0.5 * (sparsity > 1)
        size = torch.tensor(sparsity, dtype=torch.float32).sqrt().item()
        assert set(entries.abs().unique().tolist()) == ({size} if sparsity == 1 else {0.0, size})


def test_kinds_vectors_streams_and_neighbours_are_uncorrelated():
    """Correlations, also of squares and between neighboring coordinates, stay within 5 standard errors."""
    dim = 40_000
    rows = torch.cat(
        [draw(key, start, 4, dim) for draw in DRAWS[:2] for key in (0, 1) for start in (0, 1000)]
        + [gaussian_directions(0, 0, 1, dim, offset=lag) for lag in (1, 2, 3, 4, 5, 4 * dim)]
    )
    gaussian = torch.cat([rows[:16], rows[32:]])
    for numbers in (rows, gaussian.square(), gaussian.abs()):
        correlation = torch.corrcoef(numbers) - torch.eye(len(numbers))
        assert correlation.abs().max() < 5 / dim**0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"key": -1}, "key is out of range", id="negative key"),
        pytest.param({"key": 2**64}, "key is out of range", id="key too large"),
        pytest.param({"start": -1}, "start is out of range", id="negative start"),
        pytest.param({"start": 2**64 - 1}, "start is out of range", id="start too large"),
        pytest.param({"count": -1}, "count is out of range", id="negative count"),
        pytest.param({"dim": -1}, "dim is out of range", id="negative dim"),
        pytest.param({"dim": 2**58 + 1}, "dim is out of range", id="dim too large"),
        pytest.param({"offset": -1}, "offset is out of range", id="negative offset"),
        pytest.param({"offset": 2**58 - 2}, "offset is out of range", id="offset too large"),
        pytest.param({"sparsity": 0}, "sparsity is out of range", id="sparsity of 0"),
        pytest.param({"sparsity": 2**31 + 1}, "sparsity is out of range", id="sparsity too large"),
        pytest.param({"dtype": torch.bfloat16}, "float32 or float64", id="bfloat16"),
        pytest.param({"dim": 2**58, "count": 2**10}, "fit no memory", id="more than memory"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments, message):
    given = {"key": 0, "start": 0, "count": 2, "dim": 3} | arguments
    with pytest.raises(UsageError, match=message):
        sign_directions(**given)
    if "sparsity" not in given:
        with pytest.raises(UsageError, match=message):
            gaussian_directions(**given)


@draws
def test_the_ends_of_the_ranges_are_reached(draw):
    last = draw(2**64 - 1, 2**64 - 1, 1, 5, offset=2**58 - 5)
    assert torch.equal(last, draw(2**64 - 1, 2**64 - 2, 2, 7, offset=2**58 - 7)[1:, 2:])
    assert draw(0, 2**64, 0, 5).shape == (0, 5)
    assert draw(0, 0, 3, 0).shape == (3, 0)
