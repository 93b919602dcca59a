from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivengine.errors import UsageError
from equivengine.statistics import wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_published_intervals_are_reproduced(successes, n, low, high):
    """Newcombe, Stat. Med. 17 (1998), 857-872, Table I, method 3."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=5.1e-5)


def test_the_ends_satisfy_the_score_equation():
    """(p - share)^2 = z^2 p (1 - p) / n defines them."""
    z = 1.959963984540054
    for p in wilson(7, 19):
        assert (p - 7 / 19) ** 2 == pytest.approx(z * z * p * (1 - p) / 19, rel=1e-12)


@given(st.integers(1, 500), st.data())
def test_intervals_hold_the_share_and_mirror(n, data):
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert low < high
    assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert wilson(k, n, 0.5)[1] - wilson(k, n, 0.5)[0] < high - low


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_mean_coverage_is_near_what_is_said(share):
    n = 40
    k = np.random.default_rng(0).binomial(n, share, 4000)
    ends = np.array([wilson(int(i), n) for i in range(n + 1)])
    hits = (ends[k, 0] <= share) & (share <= ends[k, 1])
    assert 0.92 <= hits.mean() <= 0.985


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param((0, 0), id="of none"),
        pytest.param((-1, 5), id="negative"),
        pytest.param((6, 5), id="more than all"),
        pytest.param((1, 5, 0.0), id="level of 0"),
        pytest.param((1, 5, 1.0), id="level of 1"),
        pytest.param((1, 5, float("nan")), id="level of NaN"),
    ],
)
def test_what_is_no_share_is_refused(bad):
    with pytest.raises(UsageError):
        wilson(*bad)
