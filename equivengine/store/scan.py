"""Read every element of one file of ours, a few MiB at a time, and hold each unit against its id."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from equivengine.contracts.units import ID_BYTES, UnitIds
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
    """What ``run.h5`` says of the directory that it was made from; manifest and failures by unit id."""

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


def scan_run_file(path: Path) -> RunFile:
    """Read a ``run.h5``, and hold its parts against each other.

    Raises:
        StoreError: As `scan_shard`, or if its parts name different units.
        Mismatch: As `scan_shard`.
    """
    with guard.open_untrusted(path, schema.RUN_FORMAT, sealed=True) as file:
        found = _scan_units(file)
        manifest = read_manifest(file)
        _hold_against("manifest", manifest.unit_ids, found)
        manifest.share(found)
        tables = guard.group(file, "summary")
        listed = UnitIds(b"".join([_scan_table(guard.group(tables, probe)).raw for probe in guard.names(tables)]))
        _hold_against("summary", listed, found)
        del found, listed  # the plan is large itself
        plan = layout.stored_plan(file, str(path))
        return RunFile(plan, manifest, layout.stored_failures(file, str(path)))


def _hold_against(name: str, listed: UnitIds, found: UnitIds) -> None:
    if not same_units(listed, found):
        raise refusal.Refused(f"{len(listed)} units in /{name}, {len(found)} in /units", "the same units")


class StoredManifest(Mapping[str, ManifestEntry]):
    """The manifest of a ``run.h5`` by unit id: of a unit, its id, the digest of its shard, and bytes are kept.

    Args:
        unit_ids: Ids, each once.
        sha256: Digests, one after the other; what stands in place of a digest is in ``other_digests``.
        sizes: Bytes of the shards, int64 [units].
        other_shards: Paths by place, of the shards that are called otherwise than their units.
        other_digests: Texts by place that are no digests.
    """

    def __init__(
        self,
        unit_ids: UnitIds,
        sha256: bytearray,
        sizes: np.ndarray,
        other_shards: Mapping[int, str],
        other_digests: Mapping[int, str],
    ) -> None:
        self.unit_ids = unit_ids
        self._sha256, self._sizes = sha256, sizes
        self._other_shards, self._other_digests = other_shards, other_digests

    def __getitem__(self, unit_id: str) -> ManifestEntry:
        place = self.unit_ids.find(unit_id)
        if place is None:
            raise KeyError(unit_id)
        return self._entry(place, unit_id)

    def __contains__(self, unit_id: object) -> bool:
        return unit_id in self.unit_ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.unit_ids)

    def __len__(self) -> int:
        return len(self.unit_ids)

    def share(self, unit_ids: UnitIds) -> None:
        """Let go of the ids if these are the same."""
        if unit_ids == self.unit_ids:
            self.unit_ids = unit_ids

    def entries(self) -> Iterator[tuple[str, ManifestEntry]]:
        """All of it, in order; each place is looked up once."""
        return ((unit_id, self._entry(place, unit_id)) for place, unit_id in enumerate(self.unit_ids))

    def _entry(self, place: int, unit_id: str) -> ManifestEntry:
        sha256 = self._other_digests.get(place)
        if sha256 is None:
            sha256 = self._sha256[ID_BYTES * place : ID_BYTES * (place + 1)].hex()
        shard = self._other_shards.get(place, schema.shard_path(unit_id))
        return ManifestEntry(shard, sha256, int(self._sizes[place]))


def read_manifest(file: h5py.File) -> StoredManifest:
    """The manifest of an open ``run.h5``, by unit id.

    Raises:
        Refused, StoreError: If it is something else.
    """
    group = guard.group(file, "manifest")
    columns = [_column(group, name) for name in ("unit_id", "shard", "sha256", "size")]
    if {column.shape for column in columns} != {columns[0].shape} or columns[0].ndim != 1:
        raise refusal.Refused("columns of different lengths in /manifest", "one row for each unit")
    if [column.dtype.kind for column in columns] != ["S", "S", "S", "i"]:
        raise refusal.Refused("columns of other types in /manifest", "texts, and sizes")
    ids, shards, digests, sizes = columns
    unit_ids = _unit_ids(ids)
    if not _each_once(unit_ids):
        raise refusal.Refused("a unit twice in /manifest", "each unit once")
    other_shards = {
        place: shard
        for place, (shard, unit_id) in enumerate(zip(_texts(shards), unit_ids, strict=True))
        if shard != schema.shard_path(unit_id)
    }
    sha256, other_digests = bytearray(ID_BYTES * len(unit_ids)), dict[int, str]()
    for place, digest in enumerate(_texts(digests)):
        if schema.is_unit_id(digest):  # that is a sha256, too
            sha256[ID_BYTES * place : ID_BYTES * (place + 1)] = bytes.fromhex(digest)
        else:
            other_digests[place] = digest
    kept = np.concatenate([np.empty(0, np.int64), *_blocks(sizes)])
    return StoredManifest(unit_ids, sha256, kept, other_shards, other_digests)


def _column(group: h5py.Group, name: str) -> h5py.Dataset:
    """A column, of which no value is read."""
    node = guard.dataset(group, name)
    elements.expect(node, "column")
    return node


def _blocks(column: h5py.Dataset) -> Iterator[np.ndarray]:
    """The values of a column [rows], a chunk at a time; texts are bytes."""
    step = column.chunks[0] if column.chunks else ROWS
    return (np.asarray(column[start : start + step]) for start in range(0, len(column), step))


def _texts(column: h5py.Dataset) -> Iterator[str]:
    return (raw.decode("utf-8") for block in _blocks(column) for raw in block.tolist())


def _unit_ids(column: h5py.Dataset) -> UnitIds:
    if column.ndim != 1 or (len(column) and column.dtype != np.dtype("S64")):
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


def _each_once(unit_ids: UnitIds) -> bool:
    """Whether no id comes twice: few share their first eight bytes, and only where some do, all are looked at."""
    heads = np.sort(np.frombuffer(unit_ids.raw, dtype=np.uint64)[:: ID_BYTES // 8])
    return not (heads[1:] == heads[:-1]).any() or bool(unit_ids.firsts().all())


def _scan_table(table: h5py.Group) -> UnitIds:
    """Read the columns of one probe; returns the unit ids."""
    for name in guard.names(table):
        if guard.encoding(table, name) == "column":
            _scan_values(guard.dataset(table, name))
    return _unit_ids(_column(table, "unit_id"))


def _scan_units(file: h5py.File) -> UnitIds:
    group = guard.group(file, "units")
    found = units.ids_in(group)
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
            np.char.decode(data, "utf-8")


def _parts(node: h5py.Dataset) -> Iterator[np.ndarray]:
    if node.chunks is not None:
        for part in node.iter_chunks():
            yield node[part]
    elif node.nbytes <= _READ_BYTES:
        yield np.asarray(node[()])
