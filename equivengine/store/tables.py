"""Tables of ``run.h5``, gathered row by row, of which the last ones are in memory."""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Mapping

import h5py
import numpy as np

from equivengine.contracts.result import Scalar
from equivengine.contracts.unit import Unit
from equivengine.contracts.units import ID_BYTES, UnitIds
from equivengine.store import elements, schema
from equivengine.store.growing import ROWS, Column, Derived, Numbers, Overflow, Texts, Words, write_column
from equivengine.store.record import Record

NAN = float("nan")


class Tables:
    """The tables of all probes, in the order in which they first occur.

    Args:
        order: Ids of the units in the order in which they are appended.
        overflow: Where rows go that do not stay in memory.
    """

    def __init__(self, order: UnitIds, overflow: Overflow) -> None:
        self._order, self._overflow = order, overflow
        self._tables: dict[str, _Table] = {}
        self._count = 0

    def append(self, record: Record) -> None:
        """Add the next unit."""
        table = self._tables.get(record.unit.probe)
        if table is None:
            table = self._tables[record.unit.probe] = _Table(self._overflow)
        table.append(self._count, record)
        self._count += 1

    def write(self, parent: h5py.Group) -> None:
        """Write each as a group of columns along ``unit``."""
        for probe, table in self._tables.items():
            table.write(elements.new_group(parent, probe, "summary-table"), self._order)


class _Table:
    """The units of one probe: who they are, and their scalars (NaN where a unit lacks one)."""

    def __init__(self, overflow: Overflow) -> None:
        self._overflow = overflow
        self._places, self._samples = Numbers(overflow, "I"), Texts(overflow)
        self._models, self._status = Words(overflow), Words(overflow)
        self._scalars: dict[str, tuple[Scalar, Numbers]] = {}

    def append(self, place: int, record: Record) -> None:
        for name, scalar in record.summary.items():
            if name not in self._scalars:  # the first one says what all are
                self._scalars[name] = scalar, Numbers(self._overflow, "d", before=len(self._places), fill=NAN)
        for name, (_, values) in self._scalars.items():
            found = record.summary.get(name)
            values.append(NAN if found is None else found.value)
        self._places.append(place)
        self._models.append(record.unit.model)
        self._samples.append(sample_text(record.unit))
        self._status.append(record.status)

    def write(self, table: h5py.Group, order: UnitIds) -> None:
        raw = np.frombuffer(order.raw, dtype=np.uint8).reshape(-1, ID_BYTES)

        def unit_ids() -> Iterator[np.ndarray]:
            return (_hexadecimal(raw[places].tobytes()) for places in self._places.blocks())

        columns: dict[str, Column] = {
            "unit_id": Derived(_HEXADECIMAL, len(self._places), unit_ids),
            "model": self._models,
            "sample": self._samples,
            "status": self._status,
        }
        _write_columns(table, columns | {name: values for name, (_, values) in self._scalars.items()}, "unit")
        for name, (scalar, _) in self._scalars.items():
            for key in ("unit", "description", "group"):
                elements.set_text(table[name], key, getattr(scalar, key))
            elements.set_text(table[name], "kind", "binary" if scalar.binary else "")


class Manifest:
    """Which shard each unit was read from, with its digest and bytes.

    Args:
        order: Ids of the units in the order in which they are appended.
        overflow: Where rows go that do not stay in memory.
    """

    def __init__(self, order: UnitIds, overflow: Overflow) -> None:
        self._order = order
        self._packed: dict[int, str] = {}
        self._sha256, self._sizes = Texts(overflow), Numbers(overflow, "q")

    def append(self, shard: str, sha256: str, size: int) -> None:
        """Add the next unit; ``shard`` is relative to the run directory."""
        place = len(self._sizes)
        if shard != schema.shard_path(self._order[place]):
            self._packed[place] = shard
        self._sha256.append(sha256)
        self._sizes.append(size)

    def write(self, group: h5py.Group) -> None:
        """Write it as columns along ``entry``."""
        count = len(self._order)
        width = max(len(schema.shard_path("0" * 64)), *(len(path.encode()) for path in self._packed.values()), 0)
        columns: dict[str, Column] = {
            "unit_id": Derived(_HEXADECIMAL, count, self._unit_ids),
            "shard": Derived(np.dtype(("S", width)), count, self._shards),
            "sha256": Derived(_HEXADECIMAL, count, self._sha256.blocks),
            "size": self._sizes,
        }
        _write_columns(group, columns, "entry")

    def _unit_ids(self) -> Iterator[np.ndarray]:
        raw, step = self._order.raw, ID_BYTES * ROWS
        return (_hexadecimal(raw[start : start + step]) for start in range(0, len(raw), step))

    def _shards(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self._order), ROWS):
            places = range(start, min(start + ROWS, len(self._order)))
            paths = (self._packed.get(place) or schema.shard_path(self._order[place]) for place in places)
            yield np.array([path.encode() for path in paths])


_HEXADECIMAL = np.dtype("S64")


def _hexadecimal(raw: bytes) -> np.ndarray:
    return np.frombuffer(binascii.hexlify(raw), dtype=_HEXADECIMAL)


def sample_text(unit: Unit) -> str:
    """The ids of a unit's samples; of a set only the first (the unit itself holds all)."""
    ids = [sample.id for sample in unit.samples]
    return " | ".join(ids) if len(ids) <= 3 else f"{' | '.join(ids[:3])} | ... ({len(ids)})"


def _write_columns(group: h5py.Group, columns: Mapping[str, Column], dim: str) -> None:
    for name, column in columns.items():
        write_column(group, name, column)
    elements.write_dimensions(group, {dim: len(next(iter(columns.values())))})
    for name in columns:
        elements.attach(group, name, (dim,))
