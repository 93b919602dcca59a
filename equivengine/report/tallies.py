"""Counts and samples that take the same memory however many things come: texts, checks, evenly spaced units."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from equivengine.contracts.result import Check

T = TypeVar("T")

#: A number within a text.
_NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?")

#: Different texts (messages, reasons, devices) that are kept apart; whatever comes after these is counted together.
MOST_TEXTS = 200
#: Units of each group that overviews are given, at most; of more, so many at least half, evenly spaced.
MOST_DRAWN = 200
#: Units with a failed check that are remembered by name.
MOST_FAILED = 10


class Texts:
    """Counts texts, in the order in which they came; the first `MOST_TEXTS` different ones apart, the rest together."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.others = 0

    def add(self, text: str) -> None:
        """Count one."""
        if text in self.counts or len(self.counts) < MOST_TEXTS:
            self.counts[text] += 1
        else:
            self.others += 1

    def __iter__(self) -> Iterator[str]:
        return iter(self.counts)

    def total(self) -> int:
        """How many were counted."""
        return self.counts.total() + self.others


class Remarks:
    """Counts texts of units; those that are alike but for their numbers are one, of which the first is kept."""

    def __init__(self) -> None:
        self._kinds = Texts()
        self._first: dict[str, str] = {}
        self._differ: set[str] = set()

    def add(self, text: str) -> None:
        """Count one."""
        kind = _NUMBER.sub("#", text)
        self._kinds.add(kind)
        if kind in self._kinds.counts and self._first.setdefault(kind, text) != text:
            self._differ.add(kind)

    def kinds(self) -> list[tuple[str, int, bool]]:
        """The first text of each kind, how many there are of it, and whether their numbers differ."""
        return [(self._first[kind], count, kind in self._differ) for kind, count in self._kinds.counts.items()]

    def total(self) -> int:
        """How many were counted."""
        return self._kinds.total()


class Spaced(Generic[T]):
    """At most ``most`` of the things that come, evenly spaced: all of them, or every 2nd, 4th, 8th, ..."""

    def __init__(self, most: int = MOST_DRAWN) -> None:
        self.kept: list[T] = []
        self.seen = 0
        self._most, self._stride = most, 1

    def offer(self, make: Callable[[], T]) -> None:
        """Count one, and keep what ``make`` makes of it if its turn has come."""
        if self.seen % self._stride == 0:
            if len(self.kept) == self._most:
                self._stride *= 2
                del self.kept[1::2]
            if self.seen % self._stride == 0:
                self.kept.append(make())
        self.seen += 1


@dataclass
class CheckTally:
    """One check over units: how many passed, and the value that came closest to its bound or passed it.

    Attributes:
        description: Of the worst.
        passed: How many.
        total: Of how many.
        worst: The value.
        bound: Its bound.
        at_most: Which way it points: files store value, bound and verdict, and all but equality and NaN tell.
        failed: Places of the first `MOST_FAILED` units that failed it.
    """

    description: str = ""
    passed: int = 0
    total: int = 0
    worst: float = math.nan
    bound: float = math.nan
    at_most: bool = True
    failed: list[int] = field(default_factory=list)
    _known: bool = False
    _badness: tuple[bool, float] | None = None

    def add(self, check: Check, place: int = 0) -> None:
        """Take in the check of one unit."""
        if not self._known and check.value != check.bound and not math.isnan(check.value):
            self.at_most, self._known = check.passed == (check.value < check.bound), True
        self.total += 1
        self.passed += check.passed
        if not check.passed and len(self.failed) < MOST_FAILED:
            self.failed.append(place)
        badness = (not check.passed, self._gap(check))
        if self._badness is None or badness > self._badness:
            self._badness = badness
            self.description, self.worst, self.bound = check.description, check.value, check.bound

    def _gap(self, check: Check) -> float:
        if math.isnan(check.value):
            return math.inf
        gap = check.value - check.bound if self.at_most else check.bound - check.value
        return gap / abs(check.bound) if check.bound else gap
