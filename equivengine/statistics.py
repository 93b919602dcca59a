"""Intervals for what is estimated: percentile bootstrap (Efron and Tibshirani, 1993, chapter 13)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A statistic with its percentile bootstrap interval.

    Attributes:
        value: The statistic of the data.
        low: Lower end of the 95% interval.
        high: Upper end.
        n: Number of observations.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), or None where fewer than two observations leave nothing to resample."""
        return (self.low, self.high) if self.n > 1 else None


def bootstrap(
    *samples: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.median,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """A statistic of one or more independent samples, with its interval.

    Args:
        samples: Arrays [n_i]; each is resampled on its own.
        statistic: Called with the samples along the last axis and ``axis=-1``; must work on [..., n_i].
        seed: Seed of the resampling.
        resamples: How many resamples.
        level: Coverage of the interval.

    Returns:
        The estimate; ``n`` is the size of the smallest sample. NaN throughout where a sample is empty.
    """
    arrays = [np.asarray(sample, dtype=np.float64).ravel() for sample in samples]
    smallest = min(len(a) for a in arrays)
    if smallest == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    value = float(statistic(*arrays, axis=-1))
    if smallest == 1 and max(len(a) for a in arrays) == 1:
        return Estimate(value, np.nan, np.nan, 1)
    generator = np.random.Generator(np.random.Philox(seed))
    rows = max(1, min(resamples, (1 << 22) // max(len(a) for a in arrays)))  # 32 MiB of resampled values at a time
    drawn = []
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        parts = [a[generator.integers(0, len(a), (count, len(a)))] for a in arrays]
        drawn.append(statistic(*parts, axis=-1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    return Estimate(value, float(low), float(high), smallest)


def ratio_of_medians(numerator: np.ndarray, denominator: np.ndarray, axis: int = -1) -> np.ndarray:
    """median(numerator) / median(denominator), for `bootstrap` of two samples."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.median(numerator, axis=axis) / np.median(denominator, axis=axis))


def ratio_to_rms(numerator: np.ndarray, denominator: np.ndarray, axis: int = -1) -> np.ndarray:
    """median(numerator) / root mean square of the denominator, for `bootstrap` of two samples."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.median(numerator, axis=axis) / np.sqrt(np.mean(np.square(denominator), axis=axis)))
