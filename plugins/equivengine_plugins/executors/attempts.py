"""Which batch runs next, and which has had its last chance. Knows nothing of where batches run."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import equivengine as eqv
from equivengine_plugins.executors.unit_process import Death

Batch = tuple[eqv.Unit, ...]
Ids = tuple[str, ...]


class Countable(Hashable, Protocol):
    """A batch, or the ids of its units."""

    def __len__(self) -> int: ...


B = TypeVar("B", bound=Countable)

#: A batch whose process has died so often is recorded as failed.
LIMIT = 3


def ids_of(batch: Batch) -> Ids:
    """Ids of its units: what crosses to workers."""
    return tuple(unit.unit_id for unit in batch)


def given_up(batch: Countable, deaths: Sequence[Death]) -> str:
    """Why a batch is recorded as failed that has had its last chance."""
    causes = ", then ".join(dict.fromkeys(one.cause for one in deaths))
    whose = "this unit" if len(batch) == 1 else f"this unit and {len(batch) - 1} more of its batch"
    return f"the process of {whose} died {len(deaths)} times, at last with nothing beside it: it {causes}"


class Attempts(Generic[B]):
    """Batches in order, then those whose processes died.

    One batch runs in a process at a time, so that nothing else can have been at work in one that died. The last chance
    of a batch comes when nothing else runs: a neighbor that takes all memory is not to be its end.

    Args:
        batches: What is to be done, in order.
        limit: How often a batch may lose its process.
    """

    def __init__(self, batches: Iterable[B], limit: int = LIMIT) -> None:
        self._fresh = iter(batches)
        self._limit = limit
        self._ahead = next(self._fresh, None)
        self._again: deque[B] = deque()
        self._deaths: dict[B, list[Death]] = {}
        self._running = 0
        self._alone = False

    @property
    def over(self) -> bool:
        """Whether nothing runs and nothing is left."""
        return not self._running and self._ahead is None and not self._again

    def next(self) -> B | None:
        """The batch to start; None where there is none, or where running ones must finish first."""
        if self._alone:
            return None
        batch, self._ahead = self._ahead, next(self._fresh, None)
        if batch is None:
            if not self._again:
                return None
            last_chance = len(self._deaths[self._again[0]]) == self._limit - 1
            if last_chance and self._running:
                return None
            batch = self._again.popleft()
            self._alone = last_chance
        self._running += 1
        return batch

    def finished(self) -> None:
        """One that was started has come to an end, of whatever kind."""
        self._running -= 1
        self._alone = False

    def died(self, batch: B, death: Death) -> str | None:
        """A batch that was started lost its process: it comes again.

        Returns:
            Why it does not, if this was its last chance.
        """
        self.finished()
        deaths = self._deaths.setdefault(batch, [])
        deaths.append(death)
        if len(deaths) < self._limit:
            # Those with chances left go before those that must wait until nothing runs.
            place = len(self._again) if len(deaths) == self._limit - 1 else 0
            self._again.insert(place, batch)
            return None
        return given_up(batch, deaths)
