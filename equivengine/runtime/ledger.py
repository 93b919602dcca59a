"""Which units of a plan are still to be done: a byte for each."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from equivengine.contracts.sequences import MadeWhenAsked
from equivengine.contracts.unit import Batch
from equivengine.contracts.units import Batches
from equivengine.runtime.plan import Plan


class Ledger:
    """Crosses units off.

    Args:
        plan: The plan.
        done: Ids of units that are done already; those that the plan does not list count for nothing.

    Attributes:
        done: How many of the plan's units were done at the start.
        left: How many are still to be done.
    """

    def __init__(self, plan: Plan, done: Iterable[str]) -> None:
        self._plan = plan
        self._open = np.ones(len(plan.units), dtype=bool)
        for unit_id in done:
            place = plan.units.ids.find(unit_id)
            if place is not None:
                self._open[place] = False
        self.left = int(np.count_nonzero(self._open))
        self.done = len(self._open) - self.left

    def cross_off(self, unit_id: str) -> bool:
        """Whether a unit was still to be done; it no longer is."""
        place = self._plan.units.ids.find(unit_id)
        if place is None or not self._open[place]:
            return False
        self._open[place] = False
        self.left -= 1
        return True

    def left_in(self, places: range, among: np.ndarray | None = None) -> int:
        """How many units of a range of places are still to be done.

        Args:
            places: The range.
            among: Which units count, bool [units]; None for all.
        """
        still_open = self._open[places.start : places.stop]
        return int(np.count_nonzero(still_open if among is None else still_open & among[places.start : places.stop]))

    def is_open(self, unit_id: str) -> bool:
        """Whether a unit of the plan is still to be done."""
        place = self._plan.units.ids.find(unit_id)
        return place is not None and bool(self._open[place])

    def batches(self, among: np.ndarray | None = None) -> Remaining:
        """The batches in which some unit is still to be done, whole and in order, as it is at this moment.

        Args:
            among: Which units count, bool [units]; None for all.
        """
        still_open = self._open.copy() if among is None else self._open & among
        return Remaining(self._plan.batches(), still_open, whole=True)

    def missing(self) -> Remaining:
        """The same batches, each with those units alone that are still to be done."""
        return Remaining(self._plan.batches(), self._open.copy(), whole=False)


class Remaining(MadeWhenAsked[Batch]):
    """Batches of a plan with units that are still to be done; made when they are asked for."""

    def __init__(self, batches: Batches, still_open: np.ndarray, *, whole: bool) -> None:
        self._batches = batches
        self._open = still_open
        self._whole = whole
        starts = batches.starts()
        some = np.logical_or.reduceat(still_open, starts) if len(starts) else np.zeros(0, dtype=bool)
        self._numbers = np.flatnonzero(some).astype(np.int32)

    def __len__(self) -> int:
        return len(self._numbers)

    def _at(self, place: int) -> Batch:
        places = self._batches.places(int(self._numbers[place]))
        return tuple(self._batches.units[one] for one in places if self._whole or self._open[one])
