"""Units by the million: what they share is kept once, ids are 32 bytes each, and units are made when asked for."""

from __future__ import annotations

import bisect
import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, overload

import numpy as np

from equivengine.contracts.sequences import MadeWhenAsked
from equivengine.contracts.unit import Batch, SampleRef, Unit, canonical_json

#: Bytes of a unit id: a sha256.
ID_BYTES = 32
#: Bytes of an id that are sorted: of a million, some hundred begin like another one.
_HEAD_BYTES = 4
_HEAD = np.dtype(np.uint32)
#: Units of a group whose ids are made at a time.
_ROWS = 4096


class UnitIds(Sequence[str]):
    """Unit ids (64 hex digits each) in order, kept as `ID_BYTES` each, and eight more once one was looked for.

    Args:
        raw: The ids, one after the other.
    """

    def __init__(self, raw: bytes) -> None:
        if len(raw) % ID_BYTES:
            raise ValueError(f"{len(raw)} bytes are no whole number of unit ids")
        self.raw = raw

    @classmethod
    def of(cls, unit_ids: Iterable[str]) -> UnitIds:
        """From texts; an id that comes again is left out.

        Raises:
            ValueError: If one is not hexadecimal.
        """
        return cls(b"".join(dict.fromkeys(map(bytes.fromhex, unit_ids))))

    def __len__(self) -> int:
        return len(self.raw) // ID_BYTES

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> UnitIds: ...
    def __getitem__(self, index: int | slice) -> str | UnitIds:
        if isinstance(index, slice):
            return UnitIds(b"".join(self._bytes(place) for place in range(len(self))[index]))
        return self._bytes(range(len(self))[index]).hex()

    def __iter__(self) -> Iterator[str]:
        return (self._bytes(place).hex() for place in range(len(self)))

    def __contains__(self, unit_id: object) -> bool:
        return isinstance(unit_id, str) and self.find(unit_id) is not None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, UnitIds):
            return self.raw == other.raw
        return isinstance(other, list | tuple) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none

    def find(self, unit_id: str) -> int | None:
        """Its place, by bisection; None if it is not among them."""
        try:
            wanted = bytes.fromhex(unit_id)
        except ValueError:
            return None
        if len(wanted) != ID_BYTES or wanted.hex() != unit_id or not self.raw:
            return None
        heads, order = self._sorted
        head = np.frombuffer(wanted[:_HEAD_BYTES], dtype=_HEAD)[0]
        low, high = int(np.searchsorted(heads, head)), int(np.searchsorted(heads, head, "right"))
        found = bisect.bisect_left(order, wanted, low, high, key=self._bytes)
        return int(order[found]) if found < high and self._bytes(order[found]) == wanted else None

    def firsts(self) -> np.ndarray:
        """Which ids come for the first time, bool [len]; by sorting, O(n log n)."""
        if self.each_once():
            return np.ones(len(self), dtype=bool)
        view = np.frombuffer(self.raw, dtype=f"S{ID_BYTES}")  # zero bytes at the end do not count, nor need they
        order = np.argsort(view, kind="stable")
        fresh = np.ones(len(self), dtype=bool)
        fresh[order[1:][view[order[1:]] == view[order[:-1]]]] = False
        return fresh

    def each_once(self) -> bool:
        """Whether no id comes twice."""
        heads, order = self._sorted
        alike = np.flatnonzero(heads[1:] == heads[:-1])
        return not any(self._bytes(order[place]) == self._bytes(order[place + 1]) for place in alike)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """The first bytes of each id, sorted, and where they come from; ids that begin alike are sorted whole."""
        heads = np.frombuffer(self.raw, dtype=_HEAD)[:: ID_BYTES // _HEAD_BYTES].copy()
        order = np.argsort(heads, kind="stable").astype(np.int32)
        heads = heads[order]
        alike = np.flatnonzero(heads[1:] == heads[:-1])
        for run in np.split(alike, np.flatnonzero(np.diff(alike) > 1) + 1) if len(alike) else ():
            part = slice(int(run[0]), int(run[-1]) + 2)
            order[part] = sorted(order[part].tolist(), key=self._bytes)
        return heads, order

    def _bytes(self, place: int) -> bytes:
        return self.raw[place * ID_BYTES : (place + 1) * ID_BYTES]


NO_IDS = UnitIds(b"")


@dataclass(frozen=True, eq=False)
class Group:
    """Units that stand together and differ in their samples alone.

    Attributes:
        common: What they share; its `samples` are empty.
        rows: Rows of the table of samples, int32 [units, samples of each].
        labelled: Whether the labels of samples are part of the units.
    """

    common: Unit
    rows: np.ndarray
    labelled: bool = True


class UnitList(MadeWhenAsked[Unit]):
    """Units in order. What is kept for each is its id and the rows of its samples.

    Args:
        samples: The table of samples.
        groups: The units, by what they share; groups without units count for nothing, and neighbors that share
            everything become one.
        ids: Ids of all units, where they are known already.
    """

    def __init__(self, samples: Sequence[SampleRef], groups: Iterable[Group], ids: UnitIds | None = None) -> None:
        self.samples = samples
        self.groups = tuple(_merged(groups))
        self._starts = np.cumsum([0, *(len(group.rows) for group in self.groups)])
        self.ids = _ids_of(self.groups, samples) if ids is None else ids
        if len(self.ids) != len(self):
            raise ValueError(f"{len(self)} units have {len(self.ids)} ids")

    @classmethod
    def of(cls, units: Iterable[Unit]) -> UnitList:
        """From units that exist already; they may have nothing in common."""
        table: dict[SampleRef, int] = {}
        groups = []
        for common, alike in itertools.groupby(units, key=lambda unit: replace(unit, samples=())):
            rows = [[table.setdefault(sample, len(table)) for sample in unit.samples] for unit in alike]
            # a group holds units of equally many samples
            groups += [Group(common, _as_rows(list(same))) for _, same in itertools.groupby(rows, key=len)]
        return cls(tuple(table), groups)

    def without_repetitions(self) -> UnitList:
        """The same units, each where it comes for the first time."""
        fresh = self.ids.firsts()
        if fresh.all():
            return self
        kept = [replace(group, rows=group.rows[fresh[places.start : places.stop]]) for group, places in self.places()]
        raw = np.frombuffer(self.ids.raw, dtype=np.uint8).reshape(-1, ID_BYTES)[fresh].tobytes()
        return UnitList(self.samples, kept, UnitIds(raw))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _at(self, place: int) -> Unit:
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._unit(self.groups[number], place - int(self._starts[number]), place)

    def places(self) -> Iterator[tuple[Group, range]]:
        """Each group, and where its units stand."""
        ranges = (range(int(start), int(stop)) for start, stop in itertools.pairwise(self._starts))
        return zip(self.groups, ranges, strict=True)

    def __iter__(self) -> Iterator[Unit]:
        place = itertools.count()
        return (self._unit(group, row, next(place)) for group in self.groups for row in range(len(group.rows)))

    def _unit(self, group: Group, row: int, place: int) -> Unit:
        found = [self.samples[number] for number in group.rows[row].tolist()]
        samples = tuple(found if group.labelled else [replace(sample, label=None) for sample in found])
        unit = replace(group.common, samples=samples)
        unit.__dict__["unit_id"] = self.ids[place]  # what the cached property would compute
        return unit


class Batches(MadeWhenAsked[Batch]):
    """Units, cut into those that are computed together.

    Args:
        units: The units, in order.
        sizes: ``(size, times)``: so many batches of that size, and so on; empty where each unit is by itself.

    Raises:
        ValueError: If the sizes do not add up to the units.
    """

    def __init__(self, units: UnitList, sizes: Sequence[tuple[int, int]] = ()) -> None:
        self.units = units
        whole = all(type(number) is int and number > 0 for part in sizes for number in part)
        if not whole or (sizes and sum(size * times for size, times in sizes) != len(units)):
            raise ValueError(f"{len(units)} units cannot be cut into batches of {str(sizes)[:80]}")
        alike = ((size, list(parts)) for size, parts in itertools.groupby(sizes, key=lambda part: part[0]))
        merged = tuple((size, sum(times for _, times in parts)) for size, parts in alike)
        self.sizes = merged if any(size != 1 for size, _ in merged) else ()
        parts = self.sizes or ((1, len(units)),)
        self._parts = parts
        self._firsts = np.cumsum([0, *(times for _, times in parts)])
        self._starts = np.cumsum([0, *(size * times for size, times in parts)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def _at(self, place: int) -> Batch:
        places = self.places(place)
        return self.units[places.start : places.stop]

    def __iter__(self) -> Iterator[Batch]:
        rest = iter(self.units)
        return (tuple(itertools.islice(rest, size)) for size, times in self._parts for _ in range(times))

    def places(self, index: int) -> range:
        """Where the units of a batch stand in the plan; makes none of them."""
        number = range(len(self))[index]
        part = int(np.searchsorted(self._firsts, number, side="right")) - 1
        size = self._parts[part][0]
        start = int(self._starts[part]) + size * (number - int(self._firsts[part]))
        return range(start, start + size)

    def starts(self) -> np.ndarray:
        """The place of the first unit of each batch, int64 [batches]."""
        sizes = np.repeat([size for size, _ in self._parts], [times for _, times in self._parts])
        return np.cumsum(sizes) - sizes

    def holding(self, place: int) -> int:
        """The number of the batch that the unit of a place is in."""
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        return int(self._firsts[part]) + (place - int(self._starts[part])) // self._parts[part][0]


def plan_digest(ids: UnitIds, sizes: Sequence[tuple[int, int]] = ()) -> str:
    """sha256 (hex) of a plan: of the canonical JSON of its unit ids, in order, and of the sizes of its batches if any.

    Args:
        ids: The ids.
        sizes: As `Batches` takes them.
    """
    found = hashlib.sha256()
    if sizes:
        found.update(b'{"batches":[')
        for number, (size, times) in enumerate(sizes):
            found.update((b"," if number else b"") + b",".join([b"%d" % size] * times))
        found.update(b'],"units":')
    found.update(b"[")
    for number, unit_id in enumerate(ids):
        found.update(f'{"," if number else ""}"{unit_id}"'.encode())
    found.update(b"]}" if sizes else b"]")
    return found.hexdigest()


def _as_rows(rows: list[list[int]]) -> np.ndarray:
    return np.array(rows, dtype=np.int32).reshape(len(rows), -1)


def _merged(groups: Iterable[Group]) -> Iterator[Group]:
    for _, alike in itertools.groupby(
        (group for group in groups if len(group.rows)), key=lambda g: (g.common, g.labelled, g.rows.shape[1])
    ):
        first, *more = alike
        yield replace(first, rows=np.concatenate([first.rows, *(g.rows for g in more)])) if more else first


def _ids_of(groups: Iterable[Group], samples: Sequence[SampleRef]) -> UnitIds:
    raw = io.BytesIO()  # which gives up its bytes without copying them
    for group in groups:
        for start in range(0, len(group.rows), _ROWS):
            raw.write(_ids(replace(group, rows=group.rows[start : start + _ROWS]), samples))
    return UnitIds(raw.getvalue())


def _ids(group: Group, samples: Sequence[SampleRef]) -> bytes:
    """The ids of a group, `Unit.unit_id` of each: what its units share is written and hashed once."""
    rows = group.rows.tolist()
    used = {number: samples[number] for number in dict.fromkeys(itertools.chain.from_iterable(rows))}
    digests = {number: json.dumps(sample.digest).encode() for number, sample in used.items()}
    parts = {key: f"{json.dumps(key)}:{canonical_json(value)}" for key, value in group.common.identity().items()}
    head, rest = _around("samples", parts)
    references = [sample.label for sample in group.common.references]
    labels: dict[int, Any] = {number: sample.label for number, sample in used.items() if group.labelled}
    if not any(label is not None for label in (*labels.values(), *references)):
        started = hashlib.sha256(head)
        return b"".join(_finished(started, digests, row, rest) for row in rows)
    found = []
    for row in rows:
        own = [labels.get(number) for number in row]
        named = any(label is not None for label in (*own, *references))
        with_labels = {**parts, "labels": f'"labels":{canonical_json([own, references])}'} if named else parts
        found.append(_finished(hashlib.sha256(_around("samples", with_labels)[0]), digests, row, rest))
    return b"".join(found)


def _around(key: str, parts: dict[str, str]) -> tuple[bytes, bytes]:
    """Canonical JSON of an object up to the value of a key, and after it."""
    before = "".join(f"{part}," for name, part in sorted(parts.items()) if name < key)
    after = "".join(f",{part}" for name, part in sorted(parts.items()) if name > key)
    return f"{{{before}{json.dumps(key)}:".encode(), f"{after}}}".encode()


def _finished(started: Any, digests: dict[int, bytes], row: list[int], rest: bytes) -> bytes:
    hasher = started.copy()
    hasher.update(b"[" + b",".join([digests[number] for number in row]) + b"]" + rest)
    return bytes(hasher.digest())
