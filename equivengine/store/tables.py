"""Tables of ``run.h5``, gathered row by row: what they keep of a unit are some numbers and short texts, packed."""

from __future__ import annotations

import binascii
import itertools
from array import array
from collections.abc import Mapping

import h5py
import numpy as np

from equivengine.contracts.result import Scalar
from equivengine.contracts.unit import Unit
from equivengine.contracts.units import ID_BYTES, UnitIds
from equivengine.store import elements, schema
from equivengine.store.record import Record

NAN = float("nan")


class Texts:
    """A column of texts, as bytes one after the other; each distinct one is kept once if ``few``."""

    def __init__(self, few: bool = False) -> None:
        self._raw, self._ends = bytearray(), array("Q")
        self._codes: tuple[dict[str, int], array[int]] | None = ({}, array("I")) if few else None

    def append(self, text: str) -> None:
        """Add a row."""
        if self._codes is not None:
            known, codes = self._codes
            codes.append(known.setdefault(text, len(known)))
            if codes[-1] < len(self._ends):
                return
        self._raw += text.encode("utf-8", "backslashreplace")
        self._ends.append(len(self._raw))

    def column(self) -> np.ndarray:
        """All rows, fixed-width UTF-8."""
        starts = itertools.chain([0], self._ends)
        widest = max((end - start for start, end in zip(starts, self._ends, strict=False)), default=0)
        column = np.zeros(len(self._ends), dtype=f"S{max(1, widest)}")
        start = 0
        for row, end in enumerate(self._ends):
            column[row] = bytes(self._raw[start:end])
            start = end
        return column if self._codes is None else column[np.array(self._codes[1], dtype=np.intp)]


class Tables:
    """The tables of all probes, in the order in which they first occur.

    Args:
        order: Ids of the units in the order in which they are appended.
    """

    def __init__(self, order: UnitIds) -> None:
        self._order = order
        self._tables: dict[str, _Table] = {}
        self._count = 0

    def append(self, record: Record) -> None:
        """Add the next unit."""
        self._tables.setdefault(record.unit.probe, _Table()).append(self._count, record)
        self._count += 1

    def write(self, parent: h5py.Group) -> None:
        """Write each as a group of columns along ``unit``."""
        for probe, table in self._tables.items():
            table.write(elements.new_group(parent, probe, "summary-table"), self._order)


class _Table:
    """The units of one probe: who they are, and their scalars (NaN where a unit lacks one)."""

    def __init__(self) -> None:
        self._places, self._models, self._samples, self._status = array("I"), Texts(True), Texts(), Texts(True)
        self._scalars: dict[str, tuple[Scalar, array[float]]] = {}

    def append(self, place: int, record: Record) -> None:
        for name, scalar in record.summary.items():
            if name not in self._scalars:  # the first one says what all are
                self._scalars[name] = scalar, array("d", [NAN]) * len(self._places)
        for name, (_, values) in self._scalars.items():
            found = record.summary.get(name)
            values.append(NAN if found is None else found.value)
        self._places.append(place)
        self._models.append(record.unit.model)
        self._samples.append(sample_text(record.unit))
        self._status.append(record.status)

    def write(self, table: h5py.Group, order: UnitIds) -> None:
        raw = np.frombuffer(order.raw, dtype=np.uint8).reshape(-1, ID_BYTES)
        columns = {
            "unit_id": _hexadecimal(raw[np.array(self._places, dtype=np.intp)].tobytes()),
            "model": self._models.column(),
            "sample": self._samples.column(),
            "status": self._status.column(),
        }
        columns |= {name: np.frombuffer(values, dtype=np.float64) for name, (_, values) in self._scalars.items()}
        _write_columns(table, columns, "unit")
        for name, (scalar, _) in self._scalars.items():
            for key in ("unit", "description", "group"):
                elements.set_text(table[name], key, getattr(scalar, key))


class Manifest:
    """Which shard each unit was read from, with its digest and bytes.

    Args:
        order: Ids of the units in the order in which they are appended.
    """

    def __init__(self, order: UnitIds) -> None:
        self._order = order
        self._packed: dict[int, str] = {}
        self._sha256, self._sizes = bytearray(), array("q")

    def append(self, shard: str, sha256: str, size: int) -> None:
        """Add the next unit; ``shard`` is relative to the run directory."""
        place = len(self._sizes)
        if shard != schema.shard_path(self._order[place]):
            self._packed[place] = shard
        self._sha256 += bytes.fromhex(sha256)
        self._sizes.append(size)

    def write(self, group: h5py.Group) -> None:
        """Write it as columns along ``entry``."""
        columns = {
            "unit_id": _hexadecimal(self._order.raw),
            "shard": self._shards(),
            "sha256": _hexadecimal(self._sha256),
            "size": np.array(self._sizes, dtype=np.int64),
        }
        _write_columns(group, columns, "entry")

    def digest_of(self, unit_id: str) -> str | None:
        """The digest of a unit's shard; None if the unit is not among them."""
        place = self._order.find(unit_id)
        return None if place is None else self._sha256[ID_BYTES * place : ID_BYTES * (place + 1)].hex()

    def _shards(self) -> np.ndarray:
        width = max(len(schema.shard_path("0" * 64)), *(len(path.encode()) for path in self._packed.values()), 0)
        column = np.zeros(len(self._sizes), dtype=f"S{width}")
        for place, unit_id in enumerate(self._order):
            column[place] = self._packed.get(place, schema.shard_path(unit_id)).encode()
        return column


def _hexadecimal(raw: bytes | bytearray) -> np.ndarray:
    return np.frombuffer(binascii.hexlify(raw), dtype="S64")


def sample_text(unit: Unit) -> str:
    """The ids of a unit's samples; of a set only the first (the unit itself holds all)."""
    ids = [sample.id for sample in unit.samples]
    return " | ".join(ids) if len(ids) <= 3 else f"{' | '.join(ids[:3])} | ... ({len(ids)})"


def _write_columns(group: h5py.Group, columns: Mapping[str, np.ndarray], dim: str) -> None:
    for name, values in columns.items():
        elements.write_values(group, name, values, "column")
    elements.write_dimensions(group, {dim: len(next(iter(columns.values())))})
    for name in columns:
        elements.attach(group, name, (dim,))
