from __future__ import annotations

import math

import numpy as np
import pytest

from equivengine.statistics import bootstrap, ratio_of_medians, ratio_to_rms


def test_interval_covers_the_median_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    truth = math.log(2)
    hits = 0
    for trial in range(300):
        found = bootstrap(generator.exponential(size=60), seed=trial, resamples=300)
        hits += found.low <= truth <= found.high
    # Binomial(300, 0.95) lies within [0.90, 0.985] but for one time in ten thousand.
    assert 0.90 <= hits / 300 <= 0.985


def test_the_same_seed_gives_the_same_interval_whatever_the_chunking():
    data = np.random.default_rng(1).normal(size=5000)
    assert bootstrap(data, seed=3) == bootstrap(data, seed=3)
    assert bootstrap(data, seed=3) != bootstrap(data, seed=4)


def test_ratios_resample_both_samples():
    generator = np.random.default_rng(2)
    a, b = generator.normal(10, 1, 400), generator.normal(2, 0.2, 300)
    found = bootstrap(a, b, statistic=ratio_of_medians)
    assert found.value == pytest.approx(np.median(a) / np.median(b))
    assert found.low < found.value < found.high
    assert found.n == 300
    assert bootstrap(a, b, statistic=ratio_to_rms).value == pytest.approx(np.median(a) / np.sqrt(np.mean(b**2)))


def test_single_and_empty_samples_claim_no_interval():
    assert bootstrap(np.array([3.0])).value == 3.0
    assert bootstrap(np.array([3.0])).interval is None
    empty = bootstrap(np.array([]))
    assert math.isnan(empty.value)
    assert empty.n == 0
    assert empty.interval is None


@pytest.mark.parametrize("n", range(2, 6))
def test_fewer_than_six_observations_claim_no_interval(n):
    found = bootstrap(np.arange(n))
    assert found.interval is None
    assert 1 - 2 * 0.5**n < 0.95  # not even smallest and largest would do
    assert bootstrap(np.arange(6)).interval is not None
