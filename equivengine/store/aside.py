"""Move files of a run aside.

Nothing is deleted that cannot be made again, and nothing that is whole is taken for damaged because another process has
put it in place meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from equivengine.store import atomic, schema
from equivengine.store.verify import Finding, Inspection, identity_of


@dataclass(frozen=True)
class SetAside:
    """A file that was moved.

    Attributes:
        finding: What was wrong with it.
        moved_to: Where it lies.
    """

    finding: Finding
    moved_to: Path


def set_aside(inspection: Inspection) -> list[SetAside]:
    """Move what an inspection of a run directory found out of the way: to ``damaged/``, or to ``foreign/``.

    The plan is never touched, and a shard that is whole and of this run stays, whatever ``run.h5`` says of it. Of a
    shard that goes, the PNG files go too, since they were made from it.

    Returns:
        What was moved. A file that is not the one that was inspected any more stays.

    Raises:
        StoreError: If the directory cannot be written.
    """
    root = inspection.path
    done = []
    for finding in inspection.findings:
        if finding.kind in ("lost", "replaced") or finding.path == root / schema.PLAN_FILE:
            continue
        folder = schema.FOREIGN if finding.kind == "foreign" else schema.DAMAGED
        moved = move(root, finding.path, folder, finding.identity)
        if moved is not None:
            done.append(SetAside(finding, moved))
            if finding.path.is_relative_to(root / schema.SHARDS) and schema.is_unit_id(finding.path.stem):
                _drop_png_files(root, finding.path.stem)
    return done


def move(root: Path, path: Path, folder: str, identity: tuple[int, ...] | None = None) -> Path | None:
    """Move a file of a run to ``<folder>/<name>.<number>``, by renaming it.

    Args:
        root: The run directory.
        path: The file, or whatever else has its name.
        folder: One of `schema`'s, made if it is absent.
        identity: Move only the file of this identity; None: whatever is there.

    Returns:
        Where it lies; None if it was gone, or is another file by now.

    Raises:
        StoreError: If the directory cannot be written.
    """
    if identity is not None and identity_of(path) != identity:
        return None
    target_folder = root / folder
    atomic.make_directory(target_folder)
    with atomic.storage_errors(target_folder):
        target = _reserve(target_folder, path)
        try:
            os.rename(path, target)
        except OSError as error:
            target.rmdir() if target.is_dir() else target.unlink()
            if error.errno == errno.ENOENT:
                return None
            raise
        if identity is not None and identity_of(target) != identity:  # replaced in the last microseconds: put it back
            with contextlib.suppress(FileExistsError):
                os.link(target, path)
                target.unlink()
                return None
        atomic.sync_directory(target_folder)
        atomic.sync_directory(path.parent)
    return target


def _reserve(folder: Path, path: Path) -> Path:
    """A name that nobody else has, taken by an empty file, or an empty folder if it is for a folder."""
    number = 0
    while True:
        target = folder / f"{path.name}.{number}"
        try:
            if path.is_dir() and not path.is_symlink():
                target.mkdir()
            else:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            number += 1
        else:
            return target


def _drop_png_files(root: Path, unit_id: str) -> None:
    for folder in (root / schema.PICTURES).glob(f"*-{unit_id[:12]}"):
        shutil.rmtree(folder, ignore_errors=True)
