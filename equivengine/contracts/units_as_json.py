"""A list of units as JSON: a table of samples, tuples of its rows, and groups of units that share all but those.

``docs/format.md`` (plans of version 2) is the prose of this file. What it reads may come from anybody: sizes are
checked before anything of that size is made.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np

from equivengine.contracts.packed import PackedTexts
from equivengine.contracts.unit import SampleRef, Unit
from equivengine.contracts.units import Group, UnitList

#: Fields of a group that are those of its units. Others that a later version may add are passed over.
_TEXTS = ("probe", "probe_version", "params", "model", "weights_digest", "precision", "attention")
#: Samples and references that the ids of a plan are made from, over all units and groups.
MAX_SAMPLES_READ = 32_000_000


class SampleTable(Sequence[SampleRef]):
    """Samples, kept in columns and made when they are asked for: some hundred bytes each.

    Args:
        samples: In the order of the table.
    """

    def __init__(self, samples: Iterable[SampleRef]) -> None:
        self._images: list[str] = []
        self._index = array("q")
        self._id, self._digest = PackedTexts(), PackedTexts()
        self._label: list[str | None] = []
        names: dict[str, str] = {}  # each address once
        for sample in samples:
            self._images.append(names.setdefault(sample.images, sample.images))
            self._index.append(sample.index)
            self._id.append(sample.id)
            self._digest.append(sample.digest)
            self._label.append(sample.label if sample.label is None else names.setdefault(sample.label, sample.label))

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> SampleRef: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[SampleRef, ...]: ...
    def __getitem__(self, index: int | slice) -> SampleRef | tuple[SampleRef, ...]:
        if isinstance(index, slice):
            return tuple(self[row] for row in range(len(self))[index])
        return SampleRef(
            self._images[index], self._index[index], self._id[index], self._digest[index], self._label[index]
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Rows with one address for images stand together; a column of labels only where one is known."""
        found = []
        for images, rows in itertools.groupby(range(len(self)), key=self._images.__getitem__):
            first, *more = rows
            part = slice(first, first + 1 + len(more))
            entry: dict[str, Any] = {
                "images": images,
                "index": _as_range(self._index[part].tolist()),
                "id": self._id[part],
                "digest": self._digest[part],
            }
            if any(label is not None for label in self._label[part]):
                entry["label"] = self._label[part]
            found.append(entry)
        return found

    @classmethod
    def from_json(cls, tables: Any, limit: int) -> SampleTable:
        """Reverses `to_json`.

        Raises:
            KeyError, TypeError, ValueError: If it is something else, or has more than ``limit`` rows.
        """
        return cls(_rows_of(_typed(tables, list, "samples"), limit))


def units_to_json(units: UnitList) -> dict[str, Any]:
    """JSON types: "samples", "tuples", "groups", and "references" if there are any."""
    table, row_of = _sorted_table(units)
    tuples: dict[tuple[int, bytes], int] = {}
    listed: list[dict[str, Any]] = []
    populations: dict[tuple[SampleRef, ...], int] = {}
    groups = []
    for group in units.groups:
        rows = row_of[group.rows]
        number = tuples.setdefault((rows.shape[1], rows.tobytes()), len(listed))
        if number == len(listed):
            listed.append({"size": rows.shape[1], "rows": _as_range(rows.ravel().tolist())})
        entry: dict[str, Any] = {name: getattr(group.common, name) for name in (*_TEXTS, "seed")}
        entry["tuples"] = number
        if group.labelled:
            entry["labelled"] = True
        if group.common.references:
            entry["references"] = populations.setdefault(group.common.references, len(populations))
        groups.append(entry)
    found: dict[str, Any] = {"samples": table.to_json(), "tuples": listed, "groups": groups}
    if populations:
        found["references"] = [SampleTable(population).to_json() for population in populations]
    return found


def units_from_json(data: Mapping[str, Any], limit: int) -> UnitList:
    """Reverses `units_to_json`.

    Args:
        data: JSON types.
        limit: Most units, and most samples of a table.

    Raises:
        KeyError, TypeError, ValueError: If it is something else, or too large.
    """
    samples = SampleTable.from_json(data["samples"], limit)
    tuples: list[np.ndarray] = []
    room = MAX_SAMPLES_READ
    for entry in _typed(data["tuples"], list, "tuples"):
        tuples.append(_tuples(entry, len(samples), room))
        room -= tuples[-1].size
    populations = [
        SampleTable.from_json(population, limit)[:]
        for population in _typed(data.get("references", []), list, "references")
    ]
    groups = []
    units = read = 0
    for entry in _typed(data["groups"], list, "groups"):
        rows = tuples[_row(_typed(entry, dict, "a group")["tuples"], len(tuples))]
        references = populations[_row(entry["references"], len(populations))] if "references" in entry else ()
        units, read = units + len(rows), read + rows.size + len(references)
        if units > limit or read > MAX_SAMPLES_READ:
            raise ValueError(f"more than {limit} units, or more than {MAX_SAMPLES_READ} samples in all")
        texts = {name: _typed(entry[name], str, name) for name in _TEXTS}
        common = Unit(**texts, samples=(), seed=_typed(entry["seed"], int, "seed"), references=references)
        groups.append(Group(common, rows, _typed(entry.get("labelled", False), bool, "labelled")))
    return UnitList(samples, groups)


def batch_sizes_from_json(batches: Any) -> tuple[tuple[int, int], ...]:
    """Sizes of batches as `Batches` takes them: pairs of a size and how often it comes.

    Raises:
        TypeError, ValueError: If it is something else.
    """
    sizes = []
    for pair in batches:
        size, times = _typed(pair, list, "batches")
        if type(size) is not int or type(times) is not int or min(size, times) < 1:
            raise ValueError(f"batches of {size!r}, {times!r} times")
        sizes.append((size, times))
    return tuple(sizes)


def _sorted_table(units: UnitList) -> tuple[SampleTable, np.ndarray]:
    """The samples that are used, those of one address together, by index; and the new row of each old one."""
    used = np.unique(np.concatenate([np.zeros(0, np.int32), *(np.unique(group.rows) for group in units.groups)]))
    labelled = {int(row) for group in units.groups if group.labelled for row in np.unique(group.rows)}
    rows = [int(row) for row in used]
    found = {row: units.samples[row] for row in rows}
    found = {row: one if row in labelled else replace(one, label=None) for row, one in found.items()}
    sets = {images: place for place, images in enumerate(dict.fromkeys(sample.images for sample in found.values()))}
    rows.sort(key=lambda row: (sets[found[row].images], found[row].index))
    row_of = np.zeros(len(units.samples), dtype=np.int32)
    row_of[rows] = np.arange(len(rows), dtype=np.int32)
    return SampleTable(found[row] for row in rows), row_of


def _as_range(numbers: list[int]) -> list[int] | dict[str, int]:
    """Consecutive numbers as their first and how many there are, others as they are."""
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return {"first": numbers[0], "count": len(numbers)}
    return numbers


def _numbers(value: Any, limit: int) -> list[int] | range:
    if isinstance(value, dict):
        first, count = _typed(value["first"], int, "first"), _typed(value["count"], int, "count")
        if not (0 <= count <= limit):
            raise ValueError(f"a range of {count} numbers; at most {limit}")
        return range(first, first + count)
    numbers = _typed(value, list, "numbers")
    if not all(type(number) is int for number in numbers):
        raise TypeError("a list of numbers holds something else")
    return numbers


def _rows_of(tables: list[Any], limit: int) -> Iterator[SampleRef]:
    rows = 0
    for table in tables:
        images = _typed(_typed(table, dict, "a table of samples")["images"], str, "images")
        indices = _numbers(table["index"], limit)
        columns = [_typed(table[name], list, name) for name in ("id", "digest")]
        labels = _typed(table.get("label", [None] * len(indices)), list, "label")
        rows += len(indices)
        if rows > limit:
            raise ValueError(f"more than {limit} samples")
        for index, name, digest, label in zip(indices, *columns, labels, strict=True):
            texts = _typed(name, str, "id"), _typed(digest, str, "digest"), _typed(label, str | None, "label")
            yield SampleRef(images, index, *texts)


def _tuples(entry: Any, samples: int, room: int) -> np.ndarray:
    size = _typed(_typed(entry, dict, "tuples of samples")["size"], int, "size")
    numbers = _numbers(entry["rows"], room)
    if size < 1 or len(numbers) % size:
        raise ValueError(f"{len(numbers)} rows are no whole number of tuples of {size}")
    if len(numbers) and not 0 <= min(numbers) <= max(numbers) < samples:
        raise ValueError(f"a row that the table of {samples} samples lacks")
    return np.array(numbers, dtype=np.int32).reshape(-1, size)


def _row(value: Any, count: int) -> int:
    if type(value) is not int or not 0 <= value < count:
        raise ValueError(f"number {value!r} of {count}")
    return value


def _typed(value: Any, kind: Any, what: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{what}: {type(value).__name__}")
    return value
