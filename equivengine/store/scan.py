"""Read every element of one file of ours, a few MiB at a time, and hold each unit against its id."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from equivengine.contracts.units import NO_IDS, UnitIds
from equivengine.errors import StoreError
from equivengine.store import elements, guard, layout, pictures, refusal, schema, units
from equivengine.store.growing import ROWS
from equivengine.store.shards import same_units

#: Datasets in one piece up to this size are read; of larger ones the digest of the file has seen every byte.
_READ_BYTES = 16 << 20


class Mismatch(StoreError):
    """A unit whose content is not that of its id."""


@dataclass(frozen=True)
class ManifestEntry:
    """The shard that a unit of ``run.h5`` was read from: path relative to the run directory, digest and bytes."""

    shard: str
    sha256: str
    size: int


@dataclass(frozen=True)
class RunFile:
    """What ``run.h5`` says of the directory that it was made from; the manifest while the file is open."""

    plan: layout.StoredPlan
    manifest: StoredManifest
    failures: dict[str, layout.Failure]


def scan_shard(path: Path) -> list[str]:
    """Read a shard; returns the ids of its units.

    Raises:
        StoreError: If it is damaged, hostile or of a newer major version, or carries no digest.
        Mismatch: If a unit in it is another than its name says.
    """
    with guard.open_untrusted(path, schema.SHARD_FORMAT, sealed=True) as file:
        return list(_scan_units(file))


@contextlib.contextmanager
def scanned_run_file(path: Path, known: layout.StoredPlan | None = None) -> Iterator[RunFile]:
    """Read a ``run.h5``, and hold its parts against each other.

    Args:
        path: The file.
        known: A plan that is in memory already; where the file holds the same one, this object is taken.

    Raises:
        StoreError: As `scan_shard`, or if its parts name different units.
        Mismatch: As `scan_shard`.
    """
    with guard.open_untrusted(path, schema.RUN_FORMAT, sealed=True) as file:
        found = _scan_units(file, NO_IDS if known is None else known.unit_ids)
        manifest = StoredManifest(guard.group(file, "manifest"))
        _hold_against("manifest", [manifest.unit_id], found)
        tables = guard.group(file, "summary")
        _hold_against("summary", [_scan_table(guard.group(tables, name)) for name in guard.names(tables)], found)
        del found
        plan = layout.stored_plan(file, str(path), known)
        yield RunFile(plan, manifest, layout.stored_failures(file, str(path)))


def _hold_against(name: str, columns: Sequence[h5py.Dataset], found: UnitIds) -> None:
    """Refuse columns of ids that do not name each unit once, all together.

    As our writer makes them, each is in the order of the units, and one pass over them will do.
    """
    rows = sum(len(column) for column in columns)
    if rows == len(found) and _in_turn(columns, found):
        return
    listed = UnitIds(b"".join([_unit_ids(column).raw for column in columns]))
    if not listed.each_once():
        raise refusal.Refused(f"a unit twice in /{name}", "each unit once")
    if not same_units(listed, found):
        raise refusal.Refused(f"{rows} units in /{name}, {len(found)} in /units", "the same units")


def _in_turn(columns: Sequence[h5py.Dataset], found: UnitIds) -> bool:
    """Whether each unit comes next in one of the columns."""
    each = [_texts(column) for column in columns]
    turn = {head: column for column in each if (head := next(column, None)) is not None}
    for unit_id in found:
        column = turn.pop(unit_id, None)
        if column is None:
            return False
        if (head := next(column, None)) is not None:
            turn[head] = column
    return not turn


class StoredManifest:
    """The manifest of an open ``run.h5``, read as it is asked for, some rows at a time.

    Attributes:
        unit_id: The column of ids.

    Raises:
        Refused, StoreError: If it is something else.
    """

    def __init__(self, group: h5py.Group) -> None:
        columns = [_column(group, name) for name in ("unit_id", "shard", "sha256", "size")]
        if {column.shape for column in columns} != {columns[0].shape} or columns[0].ndim != 1:
            raise refusal.Refused("columns of different lengths in /manifest", "one row for each unit")
        if [column.dtype.kind for column in columns] != ["S", "S", "S", "i"]:
            raise refusal.Refused("columns of other types in /manifest", "texts, and sizes")
        self.unit_id, self._shard, self._sha256, self._size = columns
        self._last = range(0), list[str]()

    def __len__(self) -> int:
        return len(self.unit_id)

    def entries(self) -> Iterator[tuple[str, ManifestEntry]]:
        """All of it, in order."""
        sizes = (int(size) for block in _blocks(self._size) for size in block)
        columns = [_texts(column) for column in (self.unit_id, self._shard, self._sha256)]
        for unit_id, shard, sha256, size in zip(*columns, sizes, strict=True):
            yield unit_id, ManifestEntry(shard, sha256, size)

    def sha256_at(self, place: int) -> str:
        """A digest; those around it are kept for the next call."""
        rows, texts = self._last
        if place not in rows:
            rows = range(place - place % ROWS, min(len(self), place - place % ROWS + ROWS))
            texts = _decoded(np.asarray(self._sha256[rows.start : rows.stop]))
            self._last = rows, texts
        return texts[place - rows.start]


def _column(group: h5py.Group, name: str) -> h5py.Dataset:
    """A column, of which no value is read."""
    node = guard.dataset(group, name)
    elements.expect(node, "column")
    return node


def _blocks(column: h5py.Dataset) -> Iterator[np.ndarray]:
    """The values of a column [rows], some at a time (HDF5 keeps the chunk that they are in); texts are bytes."""
    return (np.asarray(column[start : start + ROWS]) for start in range(0, len(column), ROWS))


def _decoded(block: np.ndarray) -> list[str]:
    return [raw.decode("utf-8") for raw in block.tolist()]


def _texts(column: h5py.Dataset) -> Iterator[str]:
    return (text for block in _blocks(column) for text in _decoded(block))


def _unit_ids(column: h5py.Dataset) -> UnitIds:
    if len(column) and column.dtype != np.dtype("S64"):
        raise _no_ids(column)
    raw = io.BytesIO()  # which gives up its bytes without copying them
    for block in _blocks(column):
        text = block.tobytes().decode("ascii")
        found = bytes.fromhex(text)
        if found.hex() != text:
            raise _no_ids(column)
        raw.write(found)
    return UnitIds(raw.getvalue())


def _no_ids(column: h5py.Dataset) -> refusal.Refused:
    return refusal.Refused(f"{column.dtype} in place of unit ids", "64 lower-case hex digits each")


def _scan_table(table: h5py.Group) -> h5py.Dataset:
    """Read the columns of one probe; returns the one of unit ids."""
    for name in guard.names(table):
        if guard.encoding(table, name) == "column":
            _scan_values(guard.dataset(table, name))
    column = _column(table, "unit_id")
    if column.ndim != 1 or column.dtype.kind != "S":
        raise _no_ids(column)
    return column


def _scan_units(file: h5py.File, known: UnitIds = NO_IDS) -> UnitIds:
    group = guard.group(file, "units")
    found = units.ids_in(group, known)
    if len(found) != len(group):
        strange = next(name for name in group if not schema.is_unit_id(name))
        raise refusal.Refused(f"a unit called {strange[:80]!r}", "64 lower-case hex digits")
    for unit_id in found:
        _scan_unit(guard.group(group, unit_id), unit_id)
    return found


def _scan_unit(group: h5py.Group, unit_id: str) -> None:
    unit = units.read_record(group).unit
    if unit.unit_id != unit_id and not units.knows_more(group):
        path = Path(group.file.filename)
        raise Mismatch(
            f"{path} holds a unit whose content is not that of its id",
            expected=f"unit {unit_id}",
            got=f"content of unit {unit.unit_id}",
            hint=refusal.next_step(path),
        )
    units.check_canonical(group)
    for name in units.array_names(group).values():
        node = guard.dataset(guard.group(group, schema.ARRAYS), name)
        elements.expect(node, "array")
        dims = guard.text(node, "dims")
        if len(dims.split(",") if dims else ()) != node.ndim:
            raise refusal.Refused(f"{node.ndim} axes and the dimensions {dims[:80]!r} of {name!r}", "one name per axis")
        for key in ("unit", "description", "dtype"):
            guard.text(node, key)
        _scan_values(node)
    for name in pictures.picture_names(group):
        node = pictures.picture_node(group, name)
        guard.text(node, "description")
        _scan_values(node)


def _scan_values(node: h5py.Dataset) -> None:
    """Unpack all values, a chunk at a time."""
    for data in _parts(node):
        if data.dtype.kind == "S":
            flat = data.ravel()
            for start in range(0, len(flat), ROWS):
                _decoded(flat[start : start + ROWS])


def _parts(node: h5py.Dataset) -> Iterator[np.ndarray]:
    if node.chunks is not None:
        for part in node.iter_chunks():
            yield node[part]
    elif node.nbytes <= _READ_BYTES:
        yield np.asarray(node[()])
