"""Shards: one unit each, written once."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from equivengine.contracts.result import ProbeResult
from equivengine.contracts.unit import Unit
from equivengine.errors import EngineError, PluginError, StoreError
from equivengine.store import digests, elements, files, guard, pictures, refusal, schema, units
from equivengine.store.record import Record
from equivengine.store.template import Structure, Templates, fits, structure_of

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

#: What files of this process were opened again and looked at, the last of them: structures, and whether the file was
#: made from another one. HDF5 does the same for the next such result, so that of its file the bytes are read back, and
#: no more.
_read_back: dict[tuple[Structure, bool], None] = {}
_STRUCTURES = 256

_templates = Templates()

#: Structures, each once.
_structures: dict[Structure, Structure] = {}

#: Structures of what this process wrote, by the sha256 of the whole file; the last of them.
_written: dict[bytes, Structure] = {}
_WRITTEN = 20_000


def check_storable(unit: Unit, result: ProbeResult) -> None:
    """Refuse what the format has no place for, before anything is written.

    Raises:
        PluginError: If a name is reserved.
    """
    if not unit.probe or unit.probe in {".", ".."} or "/" in unit.probe or "\0" in unit.probe:
        raise PluginError("a probe's name is not usable", expected="no '/'", got=repr(unit.probe))
    for what in ("summary", "checks", "arrays", "pictures"):
        if len(getattr(result, what)) > schema.MAX_ENTRIES:
            raise PluginError(
                f"probe {unit.probe!r} returns too many {what}",
                expected=f"at most {schema.MAX_ENTRIES}",
                got=len(getattr(result, what)),
                hint="put many numbers of one kind in an array",
            )
        for name in getattr(result, what):
            if len(name.encode("utf-8", "surrogatepass")) > schema.MAX_NAME_BYTES:
                raise PluginError(
                    f"probe {unit.probe!r} returns {what} with a name that is too long",
                    expected=f"at most {schema.MAX_NAME_BYTES} bytes",
                    got=f"{name[:40]!r}...",
                )
    for name in result.summary:
        if name in schema.TABLE_NAMES:
            raise PluginError(
                f"scalar {name!r} of probe {unit.probe!r} has a reserved name",
                expected=f"none of {', '.join(schema.TABLE_NAMES)}",
                got=name,
            )
    for name in (*result.arrays, *(dim for array in result.arrays.values() for dim in array.dims)):
        if name.startswith(schema.NON_COORDINATE):
            raise PluginError(
                f"array or dimension {name!r} of probe {unit.probe!r} has a reserved name",
                expected=f"a name that does not begin with {schema.NON_COORDINATE!r}, which is netCDF4's",
                got=name,
                hint="give it another name in the probe",
            )


def _fill_unit(parent: h5py.Group, unit: Unit, result: ProbeResult, record: bytes) -> None:
    group = elements.new_group(parent, unit.unit_id, "unit")
    elements.write_record(group, record)
    if result.arrays:
        elements.write_arrays(elements.new_group(group, schema.ARRAYS, "arrays"), result.arrays)
    pictures.write_pictures(group, result.pictures)


def write_shard(path: Path, unit: Unit, result: ProbeResult, provenance: Mapping[str, Any]) -> None:
    """Write a shard of one unit and read it back.

    Raises:
        OSError: If it cannot be written.
        PluginError: If the result holds what cannot be stored.
        StoreError: If what was written is not what was given.
    """
    check_storable(unit, result)
    text = Record.of(unit, result, provenance).to_text()

    def fill(root: h5py.Group, record: bytes) -> None:
        _fill_unit(elements.new_group(root, "units", "units"), unit, result, record)

    if _size(result) > guard.IN_MEMORY_BYTES:
        with files.new_file(path, schema.SHARD_FORMAT) as file:
            fill(file, text.encode("ascii"))
        with _read_back_errors(unit):
            digests.checked_digest(path)
            _compare(path, unit, result, text, values=False)  # they are in the digest, and many
        return
    content, from_other = _content(unit, result, text, fill)
    files.write_image(path, content)
    with _read_back_errors(unit):
        files.compare_image(path, content)
        structure = _same(structure_of(result))
        if (structure, from_other) not in _read_back:
            _compare(path, unit, result, text, values=True)
            _keep(_read_back, (structure, from_other), None, _STRUCTURES)
    _keep(_written, hashlib.sha256(content).digest(), structure, _WRITTEN)


def structure_written(sha256: str) -> Structure | None:
    """The structure of a shard that this process wrote, so that nothing in it needs to be looked at; else None.

    Args:
        sha256: Digest (hex) of the bytes of the whole file, as they were read.
    """
    return _written.get(bytes.fromhex(sha256))


def _content(
    unit: Unit, result: ProbeResult, text: str, fill: Callable[[h5py.Group, bytes], None]
) -> tuple[bytes, bool]:
    """The bytes of a shard, and whether they were made from another one."""
    if fits(result):
        return _templates.content(unit, result, text, fill)
    return files.make_image(schema.SHARD_FORMAT, lambda root: fill(root, text.encode("ascii"))), False


def _same(structure: Structure) -> Structure:
    """An equal structure that is kept already, if there is one: `_written` names a few thousands of times."""
    same = _structures.get(structure, structure)
    _keep(_structures, same, same, _STRUCTURES)
    return same


def _keep(last: dict[_Key, _Value], key: _Key, value: _Value, limit: int) -> None:
    last[key] = value
    while len(last) > limit:
        last.pop(next(iter(last)), None)


@contextlib.contextmanager
def _read_back_errors(unit: Unit) -> Iterator[None]:
    try:
        yield
    except EngineError as error:
        raise StoreError(
            f"what was written for unit {unit.unit_id} cannot be read back",
            got=error.got or error.what,
            hint="check the disk, then resume the run",
        ) from error


def _size(result: ProbeResult) -> int:
    """Bytes of arrays and pictures."""
    return sum(one.data.nbytes for one in result.arrays.values()) + sum(
        one.levels.nbytes for one in result.pictures.values()
    )


def _compare(path: Path, unit: Unit, result: ProbeResult, text: str, *, values: bool) -> None:
    """Open a shard, and hold what is in it against what was to be written; ``values`` too."""
    with guard.open_untrusted(path, schema.SHARD_FORMAT, check=False) as file:
        group = guard.group(guard.group(file, "units"), unit.unit_id)
        found = units.read_record(group)
        if found.unit != unit:
            raise refusal.Refused("another unit", unit.unit_id)
        if elements.read_text(group, schema.RECORD, "json") != text:
            raise refusal.Refused("another record", "the one that was given")
        _compare_arrays(group, result, values)
        _compare_pictures(group, result, values)


def _compare_arrays(group: h5py.Group, result: ProbeResult, values: bool) -> None:
    dims = {dim for array in result.arrays.values() for dim in array.dims}
    stored = {name: elements.stored_name(name, array.dims, dims) for name, array in result.arrays.items()}
    arrays = units.arrays_of(group)
    if ([] if arrays is None else guard.names(arrays)[: len(stored)]) != list(stored.values()):
        raise refusal.Refused("other arrays", ", ".join(result.arrays))
    for name, array in result.arrays.items():
        _compare_values(arrays, stored[name], array.data, values)


def _compare_pictures(group: h5py.Group, result: ProbeResult, values: bool) -> None:
    if pictures.picture_names(group) != list(result.pictures):
        raise refusal.Refused("other pictures", ", ".join(result.pictures))
    for name, picture in result.pictures.items():
        _compare_values(guard.group(group, schema.PICTURES), name, picture.levels, values)


def _compare_values(parent: h5py.Group, name: str, data: np.ndarray, values: bool) -> None:
    node = guard.dataset(parent, name)
    if node.shape != data.shape:
        raise refusal.Refused(f"shape {node.shape} of {name!r}", str(data.shape))
    if not values:
        return
    found = elements.decode_values(node, np.asarray(node[()]))
    given = elements.decode_values(node, elements.stored_values(name, data)[0])
    if found.dtype != given.dtype or found.tobytes() != given.tobytes():
        raise refusal.Refused(f"other values of {name!r}", "those that were given")
