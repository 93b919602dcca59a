"""Shards: one unit each, written once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from equivengine.contracts.result import ProbeResult
from equivengine.contracts.unit import Unit
from equivengine.errors import EngineError, PluginError, StoreError
from equivengine.store import elements, files, guard, pictures, schema, units
from equivengine.store.record import Record

#: Results up to this size are made in memory, and written at once.
IN_MEMORY_BYTES = 4 << 20

_Structure = tuple[tuple[Any, ...], tuple[Any, ...]]
#: Structures of files of this process that were opened again and looked at, the last of them. HDF5 does the same for
#: the next result of one of them, so that of its file the bytes are read back, and no more.
_read_back: dict[_Structure, None] = {}
_STRUCTURES = 256


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
            raise PluginError(f"array or dimension {name!r} of probe {unit.probe!r} has a reserved name", got=name)


def write_unit(parent: h5py.Group, unit: Unit, result: ProbeResult, provenance: Mapping[str, Any]) -> None:
    """Write ``units/<unit_id>``.

    Raises:
        PluginError: If the result holds what cannot be stored.
    """
    check_storable(unit, result)
    text = Record.of(unit, result, provenance).to_text()
    group = elements.new_group(parent, unit.unit_id, "unit")
    elements.write_text(group, schema.RECORD, text, "json")
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

    def fill(root: h5py.Group) -> None:
        write_unit(elements.new_group(root, "units", "units"), unit, result, provenance)

    large = _size(result) > IN_MEMORY_BYTES
    if large:
        with files.new_file(path, schema.SHARD_FORMAT) as file:
            fill(file)
    else:
        image = files.make_image(schema.SHARD_FORMAT, fill)
        files.write_image(path, image)
    try:
        if large:
            guard.checked_digest(path)
        else:
            files.compare_image(path, image)
        structure = _structure(result)
        if large or structure not in _read_back:
            with guard.open_untrusted(path, schema.SHARD_FORMAT, check=False) as file:
                _compare(guard.group(guard.group(file, "units"), unit.unit_id), unit, result)
            _read_back[structure] = None
            while len(_read_back) > _STRUCTURES:
                _read_back.pop(next(iter(_read_back)), None)
    except EngineError as error:
        raise StoreError(
            f"what was written for unit {unit.unit_id} cannot be read back",
            got=error.got or error.what,
            hint="check the disk, then resume the run",
        ) from error


def _structure(result: ProbeResult) -> _Structure:
    """What HDF5 makes of a result, whatever its values are."""
    return (
        tuple(
            (name, one.dims, one.data.shape, one.data.dtype.str, one.unit, one.description)
            for name, one in result.arrays.items()
        ),
        tuple((name, one.levels.shape, one.description) for name, one in result.pictures.items()),
    )


def _size(result: ProbeResult) -> int:
    """Bytes of arrays and pictures."""
    return sum(one.data.nbytes for one in result.arrays.values()) + sum(
        one.levels.nbytes for one in result.pictures.values()
    )


def _compare(group: h5py.Group, unit: Unit, result: ProbeResult) -> None:
    found = units.read_record(group)
    if found.unit != unit:
        raise guard.Refused("another unit", unit.unit_id)
    if list(found.summary) != list(result.summary):
        raise guard.Refused("another summary", ", ".join(result.summary))
    dims = {dim for array in result.arrays.values() for dim in array.dims}
    stored = {name: elements.stored_name(name, array.dims, dims) for name, array in result.arrays.items()}
    arrays = units.arrays_of(group)
    if ([] if arrays is None else guard.names(arrays)[: len(stored)]) != list(stored.values()):
        raise guard.Refused("other arrays", ", ".join(result.arrays))
    for name, array in result.arrays.items():
        _compare_shape(guard.dataset(arrays, stored[name]), name, array.data.shape)
    if pictures.picture_names(group) != list(result.pictures):
        raise guard.Refused("other pictures", ", ".join(result.pictures))
    for name, picture in result.pictures.items():
        _compare_shape(guard.dataset(guard.group(group, schema.PICTURES), name), name, picture.levels.shape)
    if list(found.checks) != list(result.checks):
        raise guard.Refused("other checks", ", ".join(result.checks))


def _compare_shape(found: h5py.Dataset, name: str, shape: tuple[int, ...]) -> None:
    if found.shape != shape:
        raise guard.Refused(f"shape {found.shape} of {name!r}", str(shape))
