"""Differences of paired shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivengine.errors import UsageError
from equivengine.statistics import difference_of_shares


def paired(both, only_first, only_second, neither):
    a = np.repeat([1.0, 1.0, 0.0, 0.0], [both, only_first, only_second, neither])
    b = np.repeat([1.0, 0.0, 1.0, 0.0], [both, only_first, only_second, neither])
    return a, b


def test_without_a_difference_zero_is_inside_and_with_a_clear_one_it_is_not():
    low, high = difference_of_shares(*paired(10, 3, 3, 10))
    assert low < 0 < high
    assert low == pytest.approx(-high)
    assert difference_of_shares(*paired(10, 14, 1, 10))[0] > 0


def test_pairing_makes_it_narrower_than_independence_does():
    low, high = difference_of_shares(*paired(20, 3, 1, 20))
    a, b = paired(20, 3, 1, 20)
    apart = difference_of_shares(a, np.random.default_rng(0).permutation(b))
    assert high - low < 0.8 * (apart[1] - apart[0])


@given(
    st.lists(st.tuples(st.sampled_from((0.0, 0.5, 1.0)), st.sampled_from((0.0, 0.25, 1.0))), min_size=1, max_size=40)
)
def test_it_holds_the_difference_and_turns_round(values):
    a, b = np.array(values).T
    low, high = difference_of_shares(a, b)
    assert -1 <= low <= a.mean() - b.mean() + 1e-12
    assert a.mean() - b.mean() - 1e-12 <= high <= 1
    assert difference_of_shares(b, a) == pytest.approx((-high, -low))
    assert difference_of_shares(1 - a, 1 - b) == pytest.approx((-high, -low))


@pytest.mark.parametrize("together", [0.0, 0.6, 0.9])
@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.9, 0.7), (0.95, 0.9)])
def test_mean_coverage_is_near_what_is_said(p, q, together):
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        first, other = generator.random(30), generator.random(30)
        second = np.where(generator.random(30) < together, first, other)
        low, high = difference_of_shares((first < p).astype(float), (second < q).astype(float))
        hits.append(low <= p - q <= high)
    assert np.mean(hits) >= 0.93


def test_shares_of_other_things_are_refused():
    with pytest.raises(UsageError, match="shares of the same things") as caught:
        difference_of_shares(np.ones(3), np.ones(2))
    assert (caught.value.expected, caught.value.got) == ("3 values of both", "2")
    with pytest.raises(UsageError, match="a share needs observations"):
        difference_of_shares(np.ones(0), np.ones(0))
