"""When enough has been drawn: intervals of a median that hold at every look, and a rule that stops where one is narrow.

To look at an interval again and again while observations are added, and to stop where it is narrow, is sequential
sampling: intervals that each cover 95% are then too short as a family, and those of few observations are too short by
themselves. Here the looks are fixed beforehand (after ``first`` observations, then twice as many, up to a cap), and the
error of 5% is spent over them in equal parts (Lan and DeMets, Biometrika 70, 1983). The interval is that of order
statistics (David and Nagaraja, Order Statistics, 2003, section 7.1): it misses the true median exactly where the number
of observations below it strays too far from one half. That number is a walk of fair coins whatever the distribution, so
that the error spent at each look is computed, not approximated. All looks together miss with probability at most 5%,
for every distribution of independent observations, every sample size, and every rule of stopping at a look.

Stopping by width alone would be right in the limit of narrow intervals without any correction (Chow and Robbins, Ann.
Math. Stat. 36, 1965), and needs about half as many observations; nothing holds it to 95% before that limit.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from equivengine.errors import UsageError
from equivengine.statistics import LEVEL, Estimate

__all__ = ["FEWEST", "FIRST", "Effort", "MedianRule", "RatioRule", "blocks", "looks", "ranks"]

#: Observations at the first look.
FIRST = 32
#: With fewer, an interval of 95% or more does not exist once the error is spent over several looks.
FEWEST = 8
#: Coin walks are followed where they carry more probability than this.
_NEGLIGIBLE = 1e-18


@dataclass(frozen=True)
class Effort:
    """A median, or a ratio of two, as it stood at a look, and whether that was enough.

    Attributes:
        estimate: The median of all observations, with an interval that holds at every look; -inf .. inf where so few
            observations say nothing. Of a ratio, ``n`` counts the observations of both samples.
        tolerance: Relative half-width that was asked for.
        cap: Most observations that may be drawn; of a ratio, those of both samples.
    """

    estimate: Estimate
    tolerance: float
    cap: int

    @property
    def half_width(self) -> float:
        """Half the width of the interval over the size of the median; infinite where either is of no use."""
        width = self.estimate.high - self.estimate.low
        if not (math.isfinite(width) and self.estimate.value):
            return math.inf
        return width / 2 / abs(self.estimate.value)

    @property
    def reached(self) -> bool:
        """Whether the interval is as narrow as was asked for."""
        return self.half_width <= self.tolerance

    @property
    def finished(self) -> bool:
        """Whether no more observations are to be drawn: narrow enough, or as many as may be."""
        return self.reached or self.estimate.n >= self.cap

    @property
    def stopped_for(self) -> str:
        """``"tolerance"``, ``"cap"``, or empty where more are to be drawn."""
        return "tolerance" if self.reached else "cap" if self.finished else ""

    def shortage(self, name: str, parameter: str, tolerance: str = "tolerance") -> str:
        """What to do where the cap came first, as part of a message; empty where the tolerance was reached.

        Args:
            name: Of the scalar.
            parameter: Which holds the cap.
            tolerance: Which holds the tolerance.
        """
        if self.reached:
            return ""
        said = f"{name} is known within {self.half_width:.1%} after {self.estimate.n:,}, {self.tolerance:.1%} was asked"
        if not math.isfinite(self.half_width):
            return f"{name} has no interval after {self.estimate.n:,}: raise {parameter}"
        wanted = self.estimate.n * (self.half_width / self.tolerance) ** 2  # widths go like 1 / sqrt(n)
        return f"{said}: raise {parameter} to about {_rounded_up(wanted):,}, or {tolerance}"

    def to_json(self) -> dict[str, Any]:
        """For provenance; JSON types only."""
        return {
            "tolerance": self.tolerance,
            "half_width": self.half_width if math.isfinite(self.half_width) else None,
            "used": self.estimate.n,
            "cap": self.cap,
            "stopped_for": self.stopped_for,
        }


@dataclass(frozen=True)
class MedianRule:
    """Looks at the median of a growing sample, and what counts as narrow.

    Draw observations block by block (`blocks`), hand all of them to `judge`, and stop where it says ``finished``.
    Observation k must be the same whatever the tolerance, and independent of the others.

    Attributes:
        tolerance: Largest half-width of the interval, relative to the median.
        cap: Most observations.
        first: Observations at the first look, at least `FEWEST`.
        level: Probability that the intervals of all looks hold the median.
    """

    tolerance: float
    cap: int
    first: int = FIRST
    level: float = LEVEL

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("tolerance", 0 < self.tolerance < math.inf, "more than 0"),
            ("cap", self.cap >= 0, "0 or more"),
            ("first", self.first >= FEWEST, f"at least {FEWEST}"),
            ("level", 0 < self.level < 1, "more than 0, less than 1"),
        ):
            if not good:
                raise UsageError(
                    f"{name} of a stopping rule is out of range", expected=expected, got=getattr(self, name)
                )

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many observations there is a look, rising, the last one at the cap; none for a cap of 0."""
        return looks(self.cap, self.first)

    def blocks(self) -> list[tuple[int, int]]:
        """What to draw from look to look, as (start, stop)."""
        return blocks(self.cap, self.first)

    def judge(self, values: np.ndarray) -> Effort:
        """The median of all observations so far.

        Args:
            values: [n] in any order; n is one of `looks`.

        Raises:
            UsageError: If there is no look after so many.
        """
        values = np.sort(np.asarray(values, dtype=np.float64).ravel())
        if len(values) not in self.looks:
            raise UsageError("there is no look after so many observations", expected=self.looks, got=len(values))
        rank = ranks(self.looks, self.level)[self.looks.index(len(values))]
        if not np.isfinite(values).all():
            return Effort(Estimate(math.nan, math.nan, math.nan, len(values)), self.tolerance, self.cap)
        low, high = (values[rank - 1], values[-rank]) if rank else (-math.inf, math.inf)
        estimate = Estimate(float(np.median(values)), float(low), float(high), len(values))
        return Effort(estimate, self.tolerance, self.cap)


@dataclass(frozen=True)
class RatioRule:
    """Looks at the ratio of the medians of two growing samples that are independent of each other.

    Each sample has looks of its own, and intervals of its median that hold at all of them with probability
    sqrt(``level``). Both medians then lie in theirs, at whatever looks, with probability ``level``, and the ratio lies
    between the least and the greatest quotient of numbers of the two intervals (of positive ones: low / high and
    high / low). This needs no normal approximation, and holds however it is decided, look after look, which sample
    grows. The price is an interval wider than the bootstrap's: relative half-widths add up, and do not in quadrature.
    Where the denominator's interval holds 0 the ratio has no bound (E. C. Fieller, J. R. Stat. Soc. B 16, 1954).

    Attributes:
        tolerance: Largest half-width of the interval, relative to the ratio.
        caps: Most observations of the numerator and of the denominator.
        first: Observations at the first look of each, at least `FEWEST`.
        level: Probability that the intervals at all looks hold the ratio.
    """

    tolerance: float
    caps: tuple[int, int]
    first: int = FIRST
    level: float = LEVEL

    def __post_init__(self) -> None:
        self._rules()

    def judge(self, numerator: np.ndarray, denominator: np.ndarray) -> Effort:
        """The ratio of the medians of all observations so far.

        Args:
            numerator: [n] in any order; n is a look of its sample (`looks` of the cap and `first`).
            denominator: [k], likewise.

        Raises:
            UsageError: If there is no look after so many.
        """
        above, below = (found.estimate for found in self._parts(numerator, denominator))
        ends = (above.low, above.high, below.low, below.high)
        value = above.value / below.value if below.value else math.nan
        low, high = -math.inf, math.inf
        if all(map(math.isfinite, ends)) and not below.low <= 0 <= below.high:
            quotients = [a / b for a in ends[:2] for b in ends[2:]]
            low, high = min(quotients), max(quotients)
        return Effort(Estimate(value, low, high, above.n + below.n), self.tolerance, sum(self.caps))

    def grows(self, numerator: np.ndarray, denominator: np.ndarray) -> int | None:
        """Which sample is to be drawn from next, 0 or 1: the one whose median is known less well; None if it is enough.

        Args:
            numerator: As for `judge`.
            denominator: As for `judge`.

        Raises:
            UsageError: If there is no look after so many.
        """
        if self.judge(numerator, denominator).finished:
            return None
        parts = self._parts(numerator, denominator)
        left = [place for place in (0, 1) if parts[place].estimate.n < self.caps[place]]
        return max(left, key=lambda place: parts[place].half_width)

    def _parts(self, *samples: np.ndarray) -> list[Effort]:
        return [rule.judge(values) for rule, values in zip(self._rules(), samples, strict=True)]

    def _rules(self) -> list[MedianRule]:
        return [MedianRule(self.tolerance, cap, self.first, math.sqrt(self.level)) for cap in self.caps]


def looks(cap: int, first: int = FIRST) -> tuple[int, ...]:
    """``first``, twice, four times, ... as many, and the cap."""
    counts = []
    count = first
    while count < cap:
        counts.append(count)
        count *= 2
    return (*counts, cap) if cap > 0 else ()


def blocks(cap: int, first: int = FIRST) -> list[tuple[int, int]]:
    """The observations between `looks`, as (start, stop).

    A probe that draws in these blocks whether it has a tolerance or not computes the same bits either way.
    """
    counts = looks(cap, first)
    return list(zip((0, *counts), counts, strict=False))


@functools.lru_cache(maxsize=256)
def ranks(counts: tuple[int, ...], level: float = LEVEL) -> tuple[int, ...]:
    """Rank r of the interval from the r-th smallest to the r-th largest of n observations, for each look.

    With B(n) of n fair coins, r is the largest number for which P(B leaves [r, n - r] at this look or before) is at
    most the share of 1 - level that is spent by then. What whole ranks leave unspent goes to the next look.

    Args:
        counts: Observations n at each look, rising.
        level: Probability that all intervals hold.

    Returns:
        Ranks; 0 where no interval of finite length would do.
    """
    found = []
    spent, here, lowest = 0.0, np.ones(1), 0  # here[i]: P(B = lowest + i, and it has not left before)
    seen = 0
    for place, count in enumerate(counts, 1):
        step, shift = _coins(count - seen)
        here, lowest, seen = np.convolve(here, step), lowest + shift, count
        allowed = (1 - level) * place / len(counts) - spent
        below = 2 * np.cumsum(here)  # P(B <= lowest + i) and as much at the other end
        cut = int(np.searchsorted(below, allowed, side="right"))  # so many outcomes may be given up at each end
        cut = min(cut, len(here) // 2)
        if cut:
            spent += float(below[cut - 1])
            here, lowest = here[cut : len(here) - cut], lowest + cut
        found.append(lowest)
    return tuple(found)


def _coins(count: int) -> tuple[np.ndarray, int]:
    """Distribution of the heads of fair coins where it is not negligible: probabilities, and heads of the first."""
    reach = min(count, math.ceil(count / 2 + 5 * math.sqrt(count)) + 1)
    heads = np.arange(count - reach, reach + 1)
    logs = math.lgamma(count + 1) - np.array([math.lgamma(k + 1) + math.lgamma(count - k + 1) for k in heads.tolist()])
    probability = np.exp(logs - count * math.log(2))
    kept = np.flatnonzero(probability > _NEGLIGIBLE)
    return probability[kept[0] : kept[-1] + 1], int(heads[kept[0]])


def _rounded_up(number: float) -> int:
    """To two digits: 4,312 -> 4,400."""
    unit = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return math.ceil(number / unit) * unit
