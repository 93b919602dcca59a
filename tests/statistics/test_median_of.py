from __future__ import annotations

import math

import numpy as np
import pytest

from equivengine.statistics import MANY, bootstrap, median_of


def test_few_observations_are_resampled():
    values = np.random.default_rng(0).normal(size=MANY - 1)
    assert median_of(values) == bootstrap(values)


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


@pytest.mark.parametrize("n", [6, 8, 20, 50])
def test_for_few_observations_it_is_a_little_narrow(n):
    generator = np.random.default_rng(n)
    hits = 0
    for trial in range(400):
        found = bootstrap(generator.normal(size=n), seed=trial, resamples=300)
        hits += found.low <= 0 <= found.high
    # docs/compare.md says 92 to 95%; Binomial(400, 0.92) lies above 0.87 but for one time in a thousand.
    assert 0.87 <= hits / 400 <= 0.98
