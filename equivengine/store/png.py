"""PNG files of the pictures of published units. They are derived: shards hold the pictures, these are to look at."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from equivengine.contracts.result import Picture
from equivengine.errors import StoreError
from equivengine.store import atomic, guard, layout, lazy, pictures, schema, units


def folder_of(root: Path, probe: str, unit_id: str) -> Path:
    """Where the PNG files of a unit lie: ``pictures/<probe>-<first 12 digits of its id>`` in the run directory."""
    return root / schema.PICTURES / f"{re.sub(r'[^A-Za-z0-9_.+-]+', '_', probe)[:80]}-{unit_id[:12]}"


def find_folder(run: Path, unit_ids: Collection[str]) -> Path | None:
    """The folder of all PNG files of a run, if it holds those of every unit that is named.

    Args:
        run: A run directory or a ``run.h5``, which may have left its directory.
        unit_ids: Units with pictures.
    """
    folder = (run if run.is_dir() else run.parent) / schema.PICTURES
    try:
        present = {path.name.rpartition("-")[2] for path in folder.iterdir() if path.is_dir()}
    except OSError:
        return None
    return folder if {unit_id[:12] for unit_id in unit_ids} <= present else None


def write_unit(
    root: Path, probe: str, unit_id: str, given: Mapping[str, Picture], shard: Path | None = None
) -> list[Path]:
    """Write the PNG files of a unit, atomically; those that are there with the same bytes stay.

    Args:
        root: The run directory.
        probe: The unit's probe.
        unit_id: Its id.
        given: Its pictures; one is read only if its file may have to be written.
        shard: A file that is no older than this shard counts as made from it, and is not looked into.

    Returns:
        The files that were written.

    Raises:
        StoreError: If the disk is full or the folder cannot be written; the results are not touched.
    """
    folder = folder_of(root, probe, unit_id)
    written = []
    for name in given:
        target = folder / f"{name}.png"
        if shard is not None and _is_newer(target, shard):
            continue
        data = given[name].png()
        try:
            if _publish(target, data):
                written.append(target)
        except StoreError as error:
            hint = (
                "the results are whole, only PNG files are missing: see that they can be written, then resume the run"
            )
            raise StoreError(error.what, expected=error.expected, got=error.got, hint=hint) from error
    return written


def write_all(root: Path) -> list[Path]:
    """Write the PNG files that are missing, or older than their shards, from the ``run.h5`` of a run directory.

    Returns:
        The files that were written.

    Raises:
        StoreError: If the disk is full or the folder cannot be written, or ``run.h5`` is damaged.
    """
    source = lazy.Source(root / schema.RUN_FILE, schema.RUN_FORMAT)
    written: list[Path] = []
    packed: dict[str, str] | None = None

    def write(unit_id: str) -> None:
        nonlocal packed
        if not schema.is_unit_id(unit_id):
            return
        with source.unit(unit_id) as unit:
            names = pictures.picture_names(unit)
            if not names:
                return
            probe = units.read_record(unit).unit.probe
        shard = schema.shard_path(unit_id)
        if not (root / shard).exists():
            packed = dict(layout.find_units(root).packed) if packed is None else packed
            if unit_id not in packed:
                return
            shard = packed[unit_id]
        given = lazy.LazyPictures(source, unit_id, {name: name for name in names})
        written.extend(write_unit(root, probe, unit_id, given, root / shard))

    with guard.open_untrusted(source.path, source.format, check=False) as source.file:  # it was written just now
        guard.each_name(guard.group(source.file, "units"), write, schema.MAX_UNITS)
    return written


def _is_newer(target: Path, shard: Path) -> bool:
    with atomic.storage_errors(target.parent):
        return target.is_file() and target.stat().st_mtime_ns >= shard.stat().st_mtime_ns


def _publish(target: Path, data: bytes) -> bool:
    """Put a file in place unless the same bytes are there; its directory is made."""
    with atomic.storage_errors(target.parent):
        if target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data:
            return False
    atomic.make_directory(target.parent)
    return atomic.publish(target, lambda path: _write(path, data), overwrite=True)


def _write(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
