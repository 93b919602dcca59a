"""How fast a run goes and how long the rest may take, from what its units took so far."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from equivengine.contracts.unit import Batch, Unit, UnitOutcome

#: Probe and model: what most of a unit's cost depends on.
Kind = tuple[str, str]

#: An estimate comes after so many measured units, or after so many seconds: one unit may take an hour.
FIRST_UNITS, FIRST_SECONDS = 3, 10.0


class Pace:
    """Counts units as they finish.

    The rest is the sum, over probes and models, of the units left times the mean seconds of a unit of that kind. A kind
    that has not been measured yet counts as its probe on other models does, or else as the mean of all. The sum is
    scaled by wall time over measured time: less than 1 where units run side by side, more where they wait.
    Units that were there already take no time and are no part of any mean. Units that are computed together finish at
    one moment, so they count when the last of them has come.

    Args:
        todo: How many units are to be done.
        batches: These units, as they are computed together; may be empty, where it is not known which they are.
        clock: Seconds that never run backwards.

    Attributes:
        todo: Units to be done at the start.
        finished: How many of them are finished.
        failed: How many of those failed.
    """

    def __init__(self, todo: int, batches: Sequence[Batch] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.todo = todo
        self.finished = self.failed = 0
        self._waiting: Counter[Kind] = Counter()
        self._batch: dict[str, int] = {}  # of units that share a call; others are done when they have come
        self._open: dict[int, int] = {}
        for place, batch in enumerate(batches):
            self._waiting.update((unit.probe, unit.model) for unit in batch)
            if len(batch) > 1:
                self._batch.update(dict.fromkeys((unit.unit_id for unit in batch), place))
                self._open[place] = len(batch)
        self._held: dict[int, list[tuple[Kind, float]]] = {}
        self._clock = clock
        self._begun = self._last = clock()
        self._seconds: dict[Kind, float] = defaultdict(float)
        self._measured: Counter[Kind] = Counter()

    def unit_done(self, unit: Unit, outcome: UnitOutcome) -> None:
        """Count a unit."""
        kind = (unit.probe, unit.model)
        self.finished += 1
        self.failed += outcome.outcome == "failed"
        if self._waiting[kind]:
            self._waiting[kind] -= 1
        place = self._batch.get(unit.unit_id, -1)
        held = self._held.setdefault(place, [])
        if outcome.outcome != "skipped":
            held.append((kind, outcome.seconds))
        if place >= 0:
            self._open[place] -= 1
            if self._open[place] > 0:
                return
        for known, seconds in self._held.pop(place):
            self._measured[known] += 1
            self._seconds[known] += seconds
        self._last = self._clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._begun

    @property
    def silent(self) -> float:
        """Seconds since a unit finished, or since the start."""
        return self._clock() - self._last

    @property
    def seconds_per_unit(self) -> float | None:
        """Wall time for each measured unit up to the last one; None before the first."""
        count = self._measured.total()
        return (self._last - self._begun) / count if count else None

    @property
    def seconds_left(self) -> float | None:
        """Estimate for the rest, counted down since the last unit; None while there is too little to go by."""
        if self.finished >= self.todo:
            return 0.0
        count, wall = self._measured.total(), self._last - self._begun
        if not count or (count < FIRST_UNITS and wall < FIRST_SECONDS):
            return None
        measured = sum(self._seconds.values())
        rest = sum(left * self._mean(kind) for kind, left in self._waiting.items())
        unknown = self.todo - self.finished - self._waiting.total()
        if unknown > 0:
            rest += unknown * measured / count
        return max(0.0, rest * (wall / measured if measured > 0 else 1.0) - self.silent)

    def _mean(self, kind: Kind) -> float:
        for alike in ([kind], [known for known in self._measured if known[0] == kind[0]], list(self._measured)):
            count = sum(self._measured[known] for known in alike)
            if count:
                return sum(self._seconds[known] for known in alike) / count
        return 0.0  # unreachable: asked only when something was measured

    def words(self) -> str:
        """Rate and remaining time; empty while they are not known."""
        each, left = self.seconds_per_unit, self.seconds_left
        if each is None or left is None:
            return ""
        return f"{rate(each)}, {clock_time(left)} left"


def rate(seconds_per_unit: float) -> str:
    """Units per minute, or seconds per unit where that is the larger number.

    >>> rate(0.5), rate(90.0), rate(0.0)
    ('120 units/min', '90.0 s/unit', '')
    """
    if seconds_per_unit <= 0:
        return ""
    if seconds_per_unit < 1:
        return f"{60 / seconds_per_unit:,.0f} units/min"
    return f"{seconds_per_unit:,.1f} s/unit"


def clock_time(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock_time(3725.4), clock_time(0), clock_time(360000)
    ('1:02:05', '0:00:00', '100:00:00')
    """
    whole = round(max(0.0, seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
