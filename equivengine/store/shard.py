"""One HDF5 file being made, and the unit that it holds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py

from equivengine.contracts.result import ProbeResult
from equivengine.contracts.unit import Unit
from equivengine.errors import EngineError, PluginError, StoreError
from equivengine.store import elements, guard, nodes, pictures, schema


class _Sink:
    """The file under h5py, which never fails: HDF5 cannot close a file after a failed write, and keeps it for ever.

    The first error is kept, further writes are dropped, and `new_file` raises it when HDF5 has let go.
    """

    def __init__(self, path: Path) -> None:
        self.file = open(path, "x+b", buffering=0)  # noqa: SIM115  closed by `new_file`
        self.error: BaseException | None = None

    def _try(self, call: Any, *args: Any) -> Any:
        if self.error is None:
            try:
                return call(*args)
            except BaseException as error:  # KeyboardInterrupt too: HDF5 must not see it
                self.error = error
        return None

    def _write_all(self, data: memoryview) -> None:
        while len(data):
            data = data[self.file.write(data) :]

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._try(self._write_all, view)
        return len(view)

    def read(self, size: int = -1) -> bytes:  # h5py asks whether it is there, and uses `readinto`
        return self._try(self.file.read, size) or b""

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        read = self._try(self.file.readinto, view) or 0
        view[read:] = bytes(len(view) - read)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._try(self.file.seek, offset, whence) or 0

    def tell(self) -> int:
        return self._try(self.file.tell) or 0

    def truncate(self, size: int | None = None) -> int:
        self._try(self.file.truncate, size)
        return size or 0

    def flush(self) -> None:
        pass


@contextlib.contextmanager
def new_file(path: Path, file_format: str) -> Iterator[h5py.File]:
    """Make a file of ours: the body fills it, then its digest is put in front.

    Args:
        path: Must not exist; a temporary name (`atomic.publish` gives the file its own).
        file_format: One of `schema`'s.

    Raises:
        OSError: If it cannot be written (disk full). The caller removes the file.
    """
    sink = _Sink(path)
    try:
        try:
            with h5py.File(sink, "w", libver=schema.LIBVER, track_order=True, userblock_size=schema.USER_BLOCK) as file:
                elements.label(file, file_format)
                elements.set_text(file, "format", file_format)
                elements.set_text(file, "format-version", schema.VERSION_TEXT)
                yield file
        except Exception as error:
            if sink.error is not None:
                raise sink.error from error
            if isinstance(error, OSError) and error.errno is None:  # HDF5's own refusal, not the disk's
                raise StoreError(f"HDF5 would not write {path.parent}", got=error, hint="report this error") from error
            raise
        if sink.error is not None:
            raise sink.error
        digest = guard.sha256_of(path, schema.USER_BLOCK)
        block = schema.MAGIC + f"format {file_format} {schema.VERSION_TEXT}\nsha256 {digest}\n".encode()
        sink.file.seek(0)
        sink.file.write(block.ljust(schema.USER_BLOCK, b"\0"))
    finally:
        sink.file.close()


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


def write_unit(units: h5py.Group, unit: Unit, result: ProbeResult, provenance: Mapping[str, object]) -> None:
    """Write ``units/<unit_id>``.

    Raises:
        PluginError: If the result holds what cannot be stored.
    """
    check_storable(unit, result)
    group = elements.new_group(units, unit.unit_id, "unit")
    elements.write_text(group, "unit", schema.to_json(unit.to_json(), "a unit"), "json")
    elements.write_text(group, "provenance", schema.to_json(provenance, "the provenance of a unit"), "json")
    what = f"the provenance that probe {unit.probe!r} recorded"
    elements.write_text(group, "probe_provenance", schema.to_json(result.provenance, what), "json")
    elements.write_text(group, "status", result.status)
    if result.message:
        elements.write_text(group, "message", result.message)
    summary = elements.new_group(group, "summary", "summary")
    for name, scalar in result.summary.items():
        elements.write_scalar(summary, name, scalar)
    checks = elements.new_group(group, "checks", "checks")
    for name, check in result.checks.items():
        elements.write_check(checks, name, check)
    elements.write_arrays(elements.new_group(group, "arrays", "arrays"), result.arrays)
    pictures.write_pictures(group, result.pictures)


def write_shard(path: Path, unit: Unit, result: ProbeResult, provenance: Mapping[str, object]) -> None:
    """Write a shard of one unit and read it back.

    Raises:
        OSError: If it cannot be written.
        PluginError: If the result holds what cannot be stored.
        StoreError: If what was written is not what was given.
    """
    with new_file(path, schema.SHARD_FORMAT) as file:
        write_unit(elements.new_group(file, "units", "units"), unit, result, provenance)
    try:
        with guard.open_untrusted(path, schema.SHARD_FORMAT, check=True) as file:
            group = guard.group(guard.group(file, "units"), unit.unit_id)
            _compare(group, unit, result)
    except EngineError as error:
        raise StoreError(
            f"what was written for unit {unit.unit_id} cannot be read back",
            got=error.got or error.what,
            hint="check the disk, then resume the run",
        ) from error


def _compare(group: h5py.Group, unit: Unit, result: ProbeResult) -> None:
    if schema.parse_unit(elements.read_json(group, "unit"), "unit") != unit:
        raise guard.Refused("another unit", unit.unit_id)
    if guard.names(guard.group(group, "summary")) != list(result.summary):
        raise guard.Refused("another summary", ", ".join(result.summary))
    arrays = guard.group(group, "arrays")
    dims = {dim for array in result.arrays.values() for dim in array.dims}
    stored = {name: elements.stored_name(name, array.dims, dims) for name, array in result.arrays.items()}
    if guard.names(arrays)[: len(stored)] != list(stored.values()):
        raise guard.Refused("other arrays", ", ".join(result.arrays))
    for name, array in result.arrays.items():
        found = guard.dataset(arrays, stored[name])
        if found.shape != array.data.shape:
            raise guard.Refused(f"shape {found.shape} of {name!r}", str(array.data.shape))
    if pictures.picture_names(group) != list(result.pictures):
        raise guard.Refused("other pictures", ", ".join(result.pictures))
    for name, picture in result.pictures.items():
        found = guard.dataset(guard.group(group, schema.PICTURES), name)
        if found.shape != picture.levels.shape:
            raise guard.Refused(f"shape {found.shape} of {name!r}", str(picture.levels.shape))


def copy_unit(source: h5py.Group, target: h5py.Group) -> None:
    """Copy a unit into another file without unpacking its arrays and pictures.

    HDF5's copy would leave the references between arrays and scales dangling, so those are made anew.

    Args:
        source: A unit's group in a file opened by `guard`.
        target: The group ``units`` of the file being made.
    """
    name = source.name.rsplit("/", 1)[1]
    group = elements.new_group(target, name, "unit")
    for part in ("unit", "provenance", "probe_provenance", "status", "message"):
        if guard.has(source, part):
            nodes.copy(guard.dataset(source, part), group, part)
    for part in ("summary", "checks"):
        inner = guard.group(source, part)
        if guard.holds_datasets_only(inner):
            nodes.copy(inner, group, part)
            continue
        made = elements.new_group(group, part, part)
        for entry in guard.names(inner):
            nodes.copy(guard.dataset(inner, entry), made, entry)
    _copy_arrays(guard.group(source, "arrays"), group)
    pictures.copy_pictures(source, group)


def _copy_arrays(source: h5py.Group, unit: h5py.Group) -> None:
    """Copy the group of arrays, then attach the scales of the copies."""
    if guard.holds_datasets_only(source):
        nodes.copy(source, unit, "arrays")
        target = unit["arrays"]
    else:  # a newer version puts something else there too
        target = elements.new_group(unit, "arrays", "arrays")
        for stored in guard.names(source):
            if guard.encoding(source, stored) in ("array", "dimension"):
                nodes.copy(guard.dataset(source, stored), target, stored)
    copies = {stored: target[stored] for stored in guard.names(target)}
    for copy in copies.values():
        nodes.detach_scales(copy)
    for stored, copy in copies.items():
        text = guard.text(copy, "dims")  # only arrays have them
        dims = text.split(",") if text else []
        if text and len(dims) != copy.ndim:
            raise guard.Refused(f"{copy.ndim} axes and {len(dims)} dimensions of {stored!r}", "as many")
        for axis, dim in enumerate(dims):
            if stored != dim:
                nodes.attach_scale(copy, axis, copies[dim])
