"""Which shards a run directory has, and in which order a run has its units, in some dozens of bytes for each."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np

from equivengine.contracts.units import ID_BYTES, UnitIds
from equivengine.store import schema


class Shards(Mapping[str, str]):
    """Paths of shards, relative to the run directory, by the ids of the units that they hold, sorted by id.

    Of a unit in a shard of its own the id alone is kept, since it names the shard.

    Args:
        own: Ids of the units in shards of their own, sorted.
        packed: The shard of each unit that lies in one with others; where it has one of its own too, that one counts.
    """

    def __init__(self, own: UnitIds, packed: Mapping[str, str]) -> None:
        self._own = own
        self._packed = {unit_id: path for unit_id, path in sorted(packed.items()) if unit_id not in own}

    @property
    def packed(self) -> Mapping[str, str]:
        """Those that lie with others: all that is needed to find each, by `path_of`."""
        return self._packed

    def __getitem__(self, unit_id: str) -> str:
        return schema.shard_path(unit_id) if unit_id in self._own else self._packed[unit_id]

    def __contains__(self, unit_id: object) -> bool:
        return unit_id in self._own or unit_id in self._packed

    def __iter__(self) -> Iterator[str]:
        return heapq.merge(self._own, self._packed)

    def __len__(self) -> int:
        return len(self._own) + len(self._packed)


class ShardsOfPlan(Mapping[str, str]):
    """The same of a plan's units as they are found, in any order: of one in a shard of its own, a byte is kept.

    Args:
        planned: Ids of the plan's units.
    """

    def __init__(self, planned: UnitIds) -> None:
        self._planned, self._own = planned, bytearray(len(planned))
        self._strange: set[str] = set()
        self._packed: dict[str, str] = {}

    def add(self, unit_id: str) -> None:
        """Add a unit that has a shard of its own."""
        place = self._planned.find(unit_id)
        if place is None:
            self._strange.add(unit_id)
        else:
            self._own[place] = True

    def add_packed(self, unit_ids: Iterable[str], path: str) -> None:
        """Add units that lie in one shard."""
        self._packed.update(dict.fromkeys(unit_ids, path))

    def __getitem__(self, unit_id: str) -> str:
        return schema.shard_path(unit_id) if self._has_own(unit_id) else self._packed[unit_id]

    def __contains__(self, unit_id: object) -> bool:
        return unit_id in self._packed or self._has_own(unit_id)

    def __iter__(self) -> Iterator[str]:
        own = itertools.compress(self._planned, self._own)
        packed = (unit_id for unit_id in self._packed if not self._has_own(unit_id))
        return itertools.chain(own, self._strange, packed)

    def __len__(self) -> int:
        packed = sum(not self._has_own(unit_id) for unit_id in self._packed)
        return self._own.count(True) + len(self._strange) + packed

    def is_packed(self, unit_id: str) -> bool:
        """Whether a unit lies in a shard with others (too)."""
        return unit_id in self._packed

    def _has_own(self, unit_id: object) -> bool:
        place = self._planned.find(unit_id) if isinstance(unit_id, str) else None
        return unit_id in self._strange if place is None else bool(self._own[place])


def path_of(unit_id: str, packed: Mapping[str, str]) -> str:
    """Path of the shard of a unit that has one, relative to the run directory; ``packed`` as `Shards.packed`."""
    return packed.get(unit_id) or schema.shard_path(unit_id)


def in_order(planned: UnitIds, present: Collection[str]) -> UnitIds:
    """Unit ids as the plan orders them; those that it does not list follow, sorted.

    Args:
        planned: Those of the plan, each once; the same object is returned where these are all.
        present: Those that are wanted.
    """
    wanted = np.fromiter((unit_id in present for unit_id in planned), dtype=bool, count=len(planned))
    known = int(wanted.sum())
    if known == len(present) == len(planned):
        return planned
    raw = np.frombuffer(planned.raw, dtype=np.uint8).reshape(-1, ID_BYTES)[wanted].tobytes()
    if known < len(present):
        raw += b"".join(bytes.fromhex(one) for one in sorted(one for one in present if one not in planned))
    return UnitIds(raw)


def same_units(one: UnitIds, other: UnitIds) -> bool:
    """Whether two lists hold the same ids, in whatever order."""
    if one.raw == other.raw:
        return True
    if len(one) != len(other):
        return False
    a, b = (np.sort(np.frombuffer(ids.raw, dtype=f"S{ID_BYTES}")) for ids in (one, other))
    return bool((a == b).all())
