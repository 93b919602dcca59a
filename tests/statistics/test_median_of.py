from __future__ import annotations

import math

import numpy as np
import pytest

from equivengine.statistics import ENOUGH, MANY, bootstrap, median_of


def test_the_interval_is_the_bootstraps_or_wider():
    for n in (2, 5, 6, 7, 100, MANY - 1):
        values = np.random.default_rng(n).normal(size=n)
        found, resampled = median_of(values), bootstrap(values)
        assert (found.value, found.n) == (resampled.value, n)
        assert found.low <= resampled.low
        assert resampled.high <= found.high


@pytest.mark.parametrize("n", range(ENOUGH, 60))
def test_it_holds_the_median_of_any_continuous_distribution(n):
    found = median_of(np.arange(n))
    low, high = math.ceil(found.low) + 1, math.floor(found.high) + 1  # ranks that lie within
    assert sum(math.comb(n, heads) for heads in range(low, high)) / 2**n >= 0.95


def test_the_bootstrap_alone_does_not_hold_it_of_seven():
    found = bootstrap(np.arange(7))
    low, high = math.ceil(found.low) + 1, math.floor(found.high) + 1
    assert sum(math.comb(7, heads) for heads in range(low, high)) / 2**7 == 0.875  # what `median_of` says


@pytest.mark.parametrize("n", [MANY, MANY + 1, 2500])
def test_the_order_statistics_cover_the_median_at_least_as_often_as_they_say(n):
    found = median_of(np.arange(n))
    low, high = int(found.low) + 1, int(found.high) + 1  # ranks: the l-th and the u-th smallest
    # P(X_(l) <= median < X_(u)) is that of l .. u - 1 heads in n throws of a coin.
    covered = sum(math.comb(n, heads) for heads in range(low, high)) / 2**n
    assert 0.95 <= covered < 0.96
    assert low - 1 == n - high
    assert found.value == np.median(np.arange(n))


def test_it_is_what_the_bootstrap_converges_to():
    values = np.random.default_rng(1).lognormal(size=4001)
    exact, resampled = median_of(values), bootstrap(values)
    width = resampled.high - resampled.low
    assert exact.value == resampled.value
    assert abs(exact.low - resampled.low) < 0.25 * width
    assert abs(exact.high - resampled.high) < 0.25 * width


@pytest.mark.parametrize("n", [6, 7, 8, 13, 20, 50])
def test_samples_of_a_skewed_distribution_hold_it_as_often_as_they_say(n):
    generator = np.random.default_rng(n)
    found = [median_of(generator.lognormal(0, 2, n), seed=trial) for trial in range(400)]
    hits = sum(each.low <= 1 <= each.high for each in found)
    # Binomial(400, 0.95) lies above 0.912 but for one time in a thousand.
    assert hits / 400 > 0.912
