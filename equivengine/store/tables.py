"""Tables of ``run.h5``, gathered row by row: what they keep of a unit are some numbers and short texts, packed."""

from __future__ import annotations

import binascii
import itertools
from array import array
from collections.abc import Mapping
from functools import cached_property

import h5py
import numpy as np

from equivengine.contracts.result import Scalar
from equivengine.contracts.unit import Unit
from equivengine.contracts.units import UnitIds
from equivengine.store import elements
from equivengine.store.record import Record

NAN = float("nan")


class Texts:
    """A column of texts, as bytes one after the other; each distinct one is kept once if ``few``."""

    def __init__(self, few: bool = False) -> None:
        self._raw, self._ends = bytearray(), array("Q")
        self._codes: tuple[dict[str, int], array[int]] | None = ({}, array("L")) if few else None

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
        ends = [0, *self._ends]
        raw = bytes(self._raw)
        column = np.array([raw[a:b] for a, b in itertools.pairwise(ends)], dtype=bytes)
        return column if self._codes is None else column[np.array(self._codes[1], dtype=np.intp)]


class Digests:
    """A column of texts of 64 hexadecimal digits: ids, or sha256."""

    def __init__(self) -> None:
        self.raw = bytearray()

    def append(self, text: str) -> None:
        """Add a row."""
        self.raw += bytes.fromhex(text)

    def __getitem__(self, place: int) -> str:
        return self.raw[32 * place : 32 * place + 32].hex()

    def column(self) -> np.ndarray:
        """All rows, as bytes."""
        return np.frombuffer(binascii.hexlify(self.raw), dtype="S64")


class Tables:
    """The tables of all probes, in the order in which they first occur."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}

    def append(self, unit_id: str, record: Record) -> None:
        """Add a unit."""
        self._tables.setdefault(record.unit.probe, _Table()).append(unit_id, record)

    def write(self, parent: h5py.Group) -> None:
        """Write each as a group of columns along ``unit``."""
        for probe, table in self._tables.items():
            table.write(elements.new_group(parent, probe, "summary-table"))


class _Table:
    """The units of one probe: who they are, and their scalars (NaN where a unit lacks one)."""

    def __init__(self) -> None:
        self._unit_ids, self._models, self._samples, self._status = Digests(), Texts(True), Texts(), Texts(True)
        self._scalars: dict[str, tuple[Scalar, array[float]]] = {}
        self._count = 0

    def append(self, unit_id: str, record: Record) -> None:
        self._unit_ids.append(unit_id)
        self._models.append(record.unit.model)
        self._samples.append(sample_text(record.unit))
        self._status.append(record.status)
        for name, scalar in record.summary.items():
            if name not in self._scalars:  # the first one says what all are
                self._scalars[name] = scalar, array("d", [NAN]) * self._count
        for name, (_, values) in self._scalars.items():
            found = record.summary.get(name)
            values.append(NAN if found is None else found.value)
        self._count += 1

    def write(self, table: h5py.Group) -> None:
        columns = {
            "unit_id": self._unit_ids.column(),
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
    """Which shard each unit was read from, with its digest and bytes."""

    def __init__(self) -> None:
        self._unit_ids, self._shards, self._sha256, self._sizes = Digests(), Texts(), Digests(), array("q")

    def append(self, unit_id: str, shard: str, sha256: str, size: int) -> None:
        """Add a unit; ``shard`` is relative to the run directory."""
        self._unit_ids.append(unit_id)
        self._shards.append(shard)
        self._sha256.append(sha256)
        self._sizes.append(size)

    def write(self, group: h5py.Group) -> None:
        """Write it as columns along ``entry``."""
        columns = {
            "unit_id": self._unit_ids.column(),
            "shard": self._shards.column(),
            "sha256": self._sha256.column(),
            "size": np.frombuffer(self._sizes, dtype=np.int64),
        }
        _write_columns(group, columns, "entry")

    def digest_of(self, unit_id: str) -> str | None:
        """The digest of a unit's shard; None if the unit is not among them."""
        place = self._places.find(unit_id)
        return None if place is None else self._sha256[place]

    @cached_property
    def _places(self) -> UnitIds:
        return UnitIds(bytes(self._unit_ids.raw))


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
