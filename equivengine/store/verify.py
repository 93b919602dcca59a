"""Read everything that a run holds, and say what cannot be trusted. PNG files are derived and not looked at."""

from __future__ import annotations

import os
from pathlib import Path

from equivengine.errors import StoreError
from equivengine.store import elements, guard, layout, pictures, schema, shard


def verify_run(path: str | os.PathLike[str]) -> dict[Path, StoreError]:
    """Hold every file of a run against its digest, and read every array and picture in it.

    Args:
        path: A run directory or a ``run.h5``. In a directory whose ``run.h5`` lists a shard, that shard is also held
            against the manifest; one that is gone counts as wrong.

    Returns:
        What is wrong, by file; empty if nothing is.

    Raises:
        StoreError: If there is no run.
    """
    root = Path(path).absolute()
    if not root.is_dir():
        return _verify_files({root: schema.RUN_FORMAT})
    layout.read_plan(root)
    files = {root / relative: schema.SHARD_FORMAT for relative in layout.find_units(root).values()}
    run_file = root / schema.RUN_FILE
    if run_file.exists():
        files[run_file] = schema.RUN_FORMAT
    found = _verify_files(files)
    if run_file.exists() and run_file not in found:
        found = _verify_manifest(root, run_file) | found
    return found


def _verify_files(files: dict[Path, str]) -> dict[Path, StoreError]:
    found = {}
    for path, file_format in files.items():
        try:
            with guard.open_untrusted(path, file_format, check=True) as file:
                units = guard.group(file, "units")
                for unit_id in guard.names(units):
                    unit = guard.group(units, unit_id)
                    shard.read_arrays(unit)
                    pictures.read_pictures(unit)
        except StoreError as error:
            found[path] = error
    return found


def _verify_manifest(root: Path, run_file: Path) -> dict[Path, StoreError]:
    """Shards that are not those which ``run.h5`` was made from."""
    with guard.open_untrusted(run_file, schema.RUN_FORMAT) as file:
        manifest = guard.group(file, "manifest")
        unit_ids = elements.read_values(manifest, "unit_id", "column").tolist()
        shards = elements.read_values(manifest, "shard", "column").tolist()
        digests = elements.read_values(manifest, "sha256", "column").tolist()
    present = layout.find_units(root)
    found = {}
    for unit_id, relative, digest in zip(unit_ids, shards, digests, strict=True):
        path = root / present.get(unit_id, relative)  # what the manifest calls a path is opened only if it is ours
        actual = guard.sha256_of(path) if unit_id in present else "no file"
        if actual != digest:
            found[path] = StoreError(
                f"{path} is not the shard that {schema.RUN_FILE} was made from",
                expected=f"sha256 {digest}",
                got=actual,
                hint="resume the run, which computes what is missing and consolidates again",
            )
    return found
