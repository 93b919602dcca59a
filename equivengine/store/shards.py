"""Which shards a run directory has, and in which order a run has its units, in some dozens of bytes for each."""

from __future__ import annotations

import heapq
import io
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

    @property
    def packed(self) -> Mapping[str, str]:
        """Those that lie with others, and have no shard of their own: all that `path_of` needs to find each."""
        return {unit_id: path for unit_id, path in self._packed.items() if not self._has_own(unit_id)}

    def in_order(self) -> UnitIds:
        """Their ids as `in_order` has them; those of the plan itself where these are all."""
        wanted = np.frombuffer(self._own, dtype=bool).copy()
        others = set(self._strange)
        for unit_id in self._packed:
            place = self._planned.find(unit_id)
            if place is None:
                others.add(unit_id)
            else:
                wanted[place] = True
        return _chosen(self._planned, wanted, others)

    def __getitem__(self, unit_id: str) -> str:
        return schema.shard_path(unit_id) if self._has_own(unit_id) else self._packed[unit_id]

    def __contains__(self, unit_id: object) -> bool:
        return unit_id in self._packed or self._has_own(unit_id)

    def __iter__(self) -> Iterator[str]:
        own = itertools.compress(self._planned, self._own)
        packed = (unit_id for unit_id in self._packed if not self._has_own(unit_id))
        return itertools.chain(own, self._strange, packed)

    def __len__(self) -> int:
        return self._own.count(True) + len(self._strange) + len(self.packed)

    def is_packed(self, unit_id: str) -> bool:
        """Whether a unit lies in a shard with others (too)."""
        return unit_id in self._packed

    def _has_own(self, unit_id: object) -> bool:
        place = self._planned.find(unit_id) if isinstance(unit_id, str) else None
        return unit_id in self._strange if place is None else bool(self._own[place])


class IdsAsKnown:
    """Unit ids as they come; where they are those of a list that exists, that one takes their place.

    Args:
        known: Ids that are in memory already.
    """

    def __init__(self, known: UnitIds) -> None:
        self._known, self._alike = known, 0
        self._own: io.BytesIO | None = None  # from the first difference on; gives up its bytes without copying them

    def append(self, unit_id: str) -> None:
        """Add the next one: 64 hex digits."""
        raw = bytes.fromhex(unit_id)
        start = ID_BYTES * self._alike
        if self._own is None:
            if self._known.raw[start : start + ID_BYTES] == raw:
                self._alike += 1
                return
            self._own = io.BytesIO()
            self._own.write(self._known.raw[:start])
        self._own.write(raw)

    def made(self) -> UnitIds:
        """All of them."""
        if self._own is not None:
            return UnitIds(self._own.getvalue())
        if self._alike == len(self._known):
            return self._known
        return UnitIds(self._known.raw[: ID_BYTES * self._alike])


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
    return _chosen(planned, wanted, [one for one in present if one not in planned] if known < len(present) else ())


def _chosen(planned: UnitIds, wanted: np.ndarray, others: Iterable[str]) -> UnitIds:
    """Those of a plan that are wanted, then others, sorted."""
    more = b"".join(bytes.fromhex(one) for one in sorted(others))
    if wanted.all() and not more:
        return planned
    return UnitIds(np.frombuffer(planned.raw, dtype=np.uint8).reshape(-1, ID_BYTES)[wanted].tobytes() + more)


def same_units(one: UnitIds, other: UnitIds) -> bool:
    """Whether two lists hold the same ids, in whatever order."""
    if one.raw == other.raw:
        return True
    if len(one) != len(other):
        return False
    a, b = (np.sort(np.frombuffer(ids.raw, dtype=f"S{ID_BYTES}")) for ids in (one, other))
    return bool((a == b).all())
