"""Write a run directory: any number of processes, on any number of hosts, that may die at any moment."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from equivengine.contracts.result import ProbeResult
from equivengine.contracts.unit import Unit
from equivengine.contracts.units import UnitIds
from equivengine.errors import StoreError
from equivengine.store import aside, atomic, consolidate, guard, layout, png, scan, schema, shard
from equivengine.store.folder import require_run
from equivengine.store.layout import Failure
from equivengine.store.verify import identity_of


class RunDirectory:
    """A run directory that units are published in. Safe to open from many processes at once; picklable.

    Obtain it by `create_or_open`, or by `open` in a worker.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create_or_open(
        cls,
        path: str | os.PathLike[str],
        plan: Mapping[str, Any],
        plan_digest: str,
        told_apart: Callable[[layout.StoredPlan], Sequence[str]] = lambda stored: (),
        *,
        checked: bool = False,
    ) -> RunDirectory:
        """Freeze a plan in a directory, or open the directory that holds this plan already.

        Args:
            path: The directory; made with its parents if it is absent.
            plan: JSON types. ``plan["units"]`` lists `Unit.to_json` objects or unit ids, in the order of the run.
            plan_digest: Two plans are the same if their digests are.
            told_apart: What sets another plan apart from this one, line by line, for the error.
            checked: Whether its units are known to be those of its digest; they are not made again to see it then.

        Raises:
            StoreError: If the directory holds another plan or something else, or cannot be written. Nothing in it is
                changed then.
            PluginError: If the plan is not JSON.
        """
        root = Path(path).absolute()
        stored = layout.StoredPlan(dict(plan), plan_digest)
        text = schema.sealed_json(stored.to_json(), "the plan")
        if not checked:
            stored.check("the plan")
        atomic.make_directory(root)
        if not _holds_plan(root):
            _check_empty(root)
            atomic.publish_text(root / schema.PLAN_FILE, text, overwrite=False)
        if not _holds_text(root / schema.PLAN_FILE, text):
            found = layout.read_plan(root)
            if found.digest != plan_digest:
                raise StoreError(
                    f"{root} holds another plan",
                    expected=f"plan {plan_digest}",
                    got="\n    ".join([f"plan {found.digest}", *told_apart(found)]),
                    hint="choose another --out, or finish the run that is there with `equivengine resume`",
                )
        for name in (schema.SHARDS, schema.FAILURES):
            atomic.make_directory(root / name)
        _check_writable(root)
        opened = cls(root)
        opened.sweep()
        return opened

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Open a directory that holds a plan.

        Raises:
            StoreError: If it holds none, or its plan is damaged or of a newer major version.
        """
        root = Path(path).absolute()
        require_run(root)
        layout.read_plan(root)
        return cls(root)

    @property
    def stored_plan(self) -> layout.StoredPlan:
        """The frozen plan and its digest.

        Raises:
            StoreError: If it was damaged since.
        """
        return layout.read_plan(self.path)

    @property
    def plan(self) -> dict[str, Any]:
        """The frozen plan.

        Raises:
            StoreError: If it was damaged since.
        """
        return layout.read_plan(self.path).plan

    def sweep(self) -> None:
        """Remove what dead writers left, in all folders."""
        root = self.path
        shards, pictures = (root / schema.SHARDS).glob("[0-9a-f][0-9a-f]"), (root / schema.PICTURES).glob("*")
        for directory in (root, root / schema.FAILURES, *sorted(shards), *sorted(pictures)):
            atomic.sweep(directory)

    def publish(self, unit: Unit, result: ProbeResult, provenance: Mapping[str, Any]) -> bool:
        """Publish a unit's result; durable on disk when this returns.

        Its pictures also become PNG files where they can be written; `consolidate` makes up for those that cannot.

        Args:
            unit: The unit.
            result: What its probe found.
            provenance: Where and with what it was run; JSON types.

        Returns:
            False if the unit was published already; the first result stays.

        Raises:
            StoreError: If the disk is full or the directory cannot be written; nothing is published then.
            PluginError: If the result holds what cannot be stored.
        """
        target = self.path / schema.shard_path(unit.unit_id)
        published = False
        if not self.is_published(unit.unit_id):
            self._make_folder(target.parent)
            published = atomic.publish(
                target, lambda path: shard.write_shard(path, unit, result, provenance), overwrite=False
            )
        failure = self._failure_path(unit.unit_id)
        with atomic.storage_errors(failure.parent):
            failure.unlink(missing_ok=True)
        if published and result.pictures:
            with contextlib.suppress(StoreError):  # the result is safe; `consolidate` tries again, and says why
                png.write_unit(self.path, unit.probe, unit.unit_id, result.pictures)
        return published

    def is_published(self, unit_id: str) -> bool:
        """Whether a unit has a shard of its own (units of packed shards: `published`).

        Raises:
            StoreError: If this is no unit id.
        """
        return (self.path / schema.shard_path(unit_id)).exists()

    def published(self, planned: UnitIds | None = None) -> Set[str]:
        """Ids of all published units, as they are now.

        Args:
            planned: Ids of the plan's units, if they are in memory: a byte is kept for each then, otherwise the ids.

        Raises:
            StoreError: If the directory, or a shard that holds several units, cannot be read.
        """
        return (layout.find_units(self.path) if planned is None else layout.find_planned(self.path, planned)).keys()

    def record_failure(
        self, unit: Unit, message: str, *, error_type: str = "", provenance: Mapping[str, Any] | None = None
    ) -> None:
        """Keep why a unit failed, in place of its last failure; nothing if it is published.

        Raises:
            StoreError: If the disk is full or the directory cannot be written.
            PluginError: If the provenance is not JSON.
        """
        if self.is_published(unit.unit_id):
            return
        failure = Failure(unit, message, error_type, provenance or {})
        text = schema.sealed_json(failure.to_json(), "a failure")
        atomic.publish_text(self._failure_path(unit.unit_id), text, overwrite=True)

    def failures(self) -> dict[str, Failure]:
        """Last failure by unit id, of the units that have not been published since.

        Raises:
            StoreError: If one is damaged.
        """
        return layout.read_failures(self.path, self.published())

    def consolidate(self) -> Path:
        """Gather plan, shards and failures in ``run.h5``, replacing the one that is there; then make missing PNG files.

        What others publish meanwhile is in it too: whoever replaces the file last has looked again afterwards. A former
        ``run.h5`` that holds a result which no shard holds any more is kept, in ``damaged/``.

        Returns:
            The path of ``run.h5``.

        Raises:
            StoreError: If a shard is damaged, or the disk is full; the former ``run.h5`` stays then. Or if a PNG file
                cannot be written; ``run.h5`` is the new one then.
        """
        target = self.path / schema.RUN_FILE
        while True:
            before = self._state()
            try:
                atomic.publish(target, self._write_run_file, overwrite=True)
            except StoreError:
                if self._state() == before:
                    raise
                continue  # a file was moved while it was read
            if self._state() == before:
                break
        self.write_pictures()
        return target

    def write_pictures(self) -> list[Path]:
        """Write the PNG files that are missing, or older than their shards, from ``run.h5``.

        Returns:
            The files that were written.

        Raises:
            StoreError: If one cannot be written, or ``run.h5`` is damaged or absent.
        """
        return png.write_all(self.path)

    def _state(self) -> str:
        """A digest of what ``run.h5`` is made from, told apart by inode: files are never changed."""
        found = hashlib.sha256()
        plan = self.path / schema.PLAN_FILE
        for path in itertools.chain([plan], layout.shard_files(self.path), layout.failure_files(self.path)):
            found.update(f"{path}\0{identity_of(path)}\0".encode("utf-8", "surrogateescape"))
        return found.hexdigest()

    def _write_run_file(self, path: Path) -> None:
        order = consolidate.write_run_file(path, self.path)
        former = self.path / schema.RUN_FILE
        gone, others = set(), False
        with _manifest_of(path) as made, contextlib.suppress(StoreError), _manifest_of(former) as kept:
            for unit_id, entry in kept.entries():
                place = order.find(unit_id)
                if place is None:
                    gone.add(unit_id)
                else:
                    others = others or made.sha256_at(place) != entry.sha256
        if others or (gone and gone - self.published()):
            aside.move(self.path, former, schema.DAMAGED)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder for shards; a run directory that has vanished is not made again, without its plan."""
        with atomic.storage_errors(self.path):
            try:
                folder.mkdir()
            except FileExistsError:
                return
            atomic.sync_directory(folder.parent)

    def _failure_path(self, unit_id: str) -> Path:
        return self.path / schema.FAILURES / f"{unit_id}.json"


@contextlib.contextmanager
def _manifest_of(run_file: Path) -> Iterator[scan.StoredManifest]:
    with guard.open_untrusted(run_file, schema.RUN_FORMAT, check=False) as file:
        yield scan.StoredManifest(guard.group(file, "manifest"))


def _holds_plan(root: Path) -> bool:
    with atomic.storage_errors(root):
        return (root / schema.PLAN_FILE).exists()


def _holds_text(path: Path, text: str) -> bool:
    """Whether a file is known to hold a text; what cannot be read is for others to complain about."""
    raw = text.encode()
    with contextlib.suppress(OSError):
        return path.is_file() and path.stat().st_size == len(raw) and path.read_bytes() == raw
    return False


def _check_empty(root: Path) -> None:
    """A directory of someone else's files never becomes a run; what a dead writer left does not count."""
    with atomic.storage_errors(root):
        others = sorted(path.name for path in root.iterdir() if not atomic.is_temporary(path))
    if others and not _holds_plan(root):  # another process may have made it a run meanwhile
        raise StoreError(
            f"{root} is not empty and holds no run",
            expected="a new or empty directory, or a run",
            got=", ".join(others[:5]) + (", ..." if len(others) > 5 else ""),
            hint="choose another --out",
        )


def _check_writable(root: Path) -> None:
    """Say now, not after the first hour of work, that nothing can be written."""
    probe = atomic.temporary_beside(root / "writable")
    with atomic.storage_errors(root):
        probe.write_bytes(b"")
        probe.unlink()
