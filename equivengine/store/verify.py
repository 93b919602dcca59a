"""Read everything that a run holds, and say what cannot be trusted. PNG files are derived and not looked at.

The plan and the shards are what a run is; ``run.h5`` is made from them. So a shard that is whole counts even where
``run.h5`` says otherwise, and what is wrong with ``run.h5`` alone is put right by making it again.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from equivengine.contracts.units import NO_IDS
from equivengine.errors import StoreError
from equivengine.store import digests, folder, layout, refusal, scan, schema
from equivengine.store.layout import StoredPlan
from equivengine.store.lazy import Source
from equivengine.store.published import read_value
from equivengine.store.shards import IdsAsKnown, ShardsOfPlan

#: What may be wrong with a file:
#: damaged: not what was written, truncated, or unreadable; misplaced: whole, and of another unit than its name says;
#: foreign: whole, and of a unit that the plan does not list; lost: ``run.h5`` was made from it and it is gone;
#: replaced: whole, and not the one that ``run.h5`` was made from.
Kind = Literal["damaged", "misplaced", "foreign", "lost", "replaced"]

PlanCheck = Callable[[StoredPlan, Path], object]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run.

    Attributes:
        path: The file.
        kind: See `Kind`.
        error: What, what was expected, what was found, and the next step.
        unit_ids: Units of the plan that have no result which can be trusted because of it.
        identity: Device, inode, size and time of the file that was looked at; None if there is none.
    """

    path: Path
    kind: Kind
    error: StoreError
    unit_ids: tuple[str, ...] = ()
    identity: tuple[int, int, int, int] | None = None


@dataclass
class Inspection:
    """What a run holds and what is wrong with it.

    Attributes:
        path: A run directory or a ``run.h5``.
        findings: What is wrong, sorted by file.
        missing: Units of the plan that were never published as far as anything here knows, in its order; failed ones
            are not among them, nor those that need not run. Of many, 32 bytes each are kept.
        unneeded: Units of the plan that have not run and need not, since a scalar is known well enough without them.
        failed: Units of the plan that failed, in its order.
        shards: Number of shards that were read.
        failures: Number of failures that were read.
        bytes: Size of everything that was read.
        outdated: Whether ``run.h5`` is absent, or holds something else than the directory.
    """

    path: Path
    findings: list[Finding] = field(default_factory=list)
    missing: Sequence[str] = ()
    unneeded: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    shards: int = 0
    failures: int = 0
    bytes: int = 0
    outdated: bool = False

    @property
    def rerun(self) -> list[str]:
        """Units of the plan that a resumed run computes again because of what was found; sorted."""
        return sorted({unit_id for finding in self.findings for unit_id in finding.unit_ids})


def verify_run(path: str | os.PathLike[str]) -> dict[Path, StoreError]:
    """Hold every file of a run against its digest and its name, and read everything in it.

    Args:
        path: A run directory or a ``run.h5``. In a directory whose ``run.h5`` lists a shard, that shard is also held
            against the manifest; one that is gone counts as wrong.

    Returns:
        What cannot be trusted, by file; empty if nothing is. Whole shards of units that the plan does not list are not
        among it: `inspect_run` has all that is known.

    Raises:
        StoreError: If there is no run.
    """
    return {finding.path: finding.error for finding in inspect_run(path).findings if finding.kind != "foreign"}


def inspect_run(
    path: str | os.PathLike[str], *, check_plan: PlanCheck | None = None, known: StoredPlan | None = None
) -> Inspection:
    """Read everything that a run holds: digests, names, structure, values, and how the files fit together.

    Nothing is changed, and other processes may write meanwhile.

    Args:
        path: A run directory or a ``run.h5``.
        check_plan: Called with the stored plan and its path; raises an EngineError if the plan is not what its digest
            says. The store knows only that it is as it was written.
        known: Its plan, if that is in memory already: where it is the one on disk, no second copy is kept.

    Raises:
        StoreError: If there is no run.
    """
    root = Path(path).absolute()
    if not root.is_dir():
        digests.require_file(root)
        found = Inspection(root)
        with _findings(found, root), scan.scanned_run_file(root):
            pass
        return found
    folder.require_run(root)
    inspector = _Inspector(root, known)
    inspector.look(check_plan)
    return inspector.inspection


class _Inspector:
    """Looks at one directory."""

    def __init__(self, root: Path, known: StoredPlan | None) -> None:
        self.root = root
        self.inspection = Inspection(root)
        self.plan: StoredPlan | None = None
        self.planned = NO_IDS
        self._known = known

    def look(self, check_plan: PlanCheck | None) -> None:
        """Read everything."""
        with _findings(self.inspection, self.root / schema.PLAN_FILE):
            self._read_plan(check_plan)
        files = contextlib.ExitStack()
        try:
            run_file = self._read_run_file(files)  # before the shards, which may be published meanwhile
            self.units = ShardsOfPlan(self.planned)
            for path in layout.shard_files(self.root):
                self._read_shard(path)
            failures = self._read_failures()
            if run_file is None:
                self.inspection.outdated = True
            else:
                self._compare(run_file.manifest, run_file.failures, failures)
        finally:
            files.close()  # what went wrong in between is not its fault
        self._list_units(failures)
        self.inspection.findings.sort(key=lambda finding: finding.path)

    def _list_units(self, failures: Mapping[str, layout.Failure]) -> None:
        """Those that have no result which can be trusted, by what becomes of them."""
        found, rerun = self.inspection, set(self.inspection.rerun)
        out = IdsAsKnown(NO_IDS)
        for unit_id in self.planned:
            if unit_id in self.units or unit_id in rerun:
                continue
            if unit_id in failures:
                found.failed.append(unit_id)
            else:
                out.append(unit_id)
        missing = out.made()
        unneeded = self._unneeded(failures) if len(missing) else set()
        found.missing = missing if not unneeded else [unit_id for unit_id in missing if unit_id not in unneeded]
        found.unneeded = [unit_id for unit_id in missing if unit_id in unneeded] if unneeded else []

    def _unneeded(self, failures: Mapping[str, layout.Failure]) -> set[str]:
        """Units that need not run, as far as results say that can be trusted."""
        enough = None if self.plan is None else self.plan.enough
        if enough is None:
            return set()
        spoilt = set(self.inspection.rerun)

        def value_of(unit_id: str, scalar: str) -> float | None:
            if unit_id in self.units and unit_id not in spoilt:
                return read_value(Source(self.root / self.units[unit_id], schema.SHARD_FORMAT), unit_id, scalar)
            return math.nan if unit_id in failures and unit_id not in spoilt else None

        return set(enough.unneeded(enough.endings(value_of)))

    def _read_plan(self, check_plan: PlanCheck | None) -> None:
        path = self.root / schema.PLAN_FILE
        self.inspection.bytes += digests.regular_size(path)
        plan = layout.read_plan(self.root)
        layout.check_canonical(path)
        if self._known is not None and (plan.digest, plan.plan) == (self._known.digest, self._known.plan):
            plan = self._known
        self.planned = plan.unit_ids
        if check_plan is not None:
            check_plan(plan, path)
        self.plan = plan

    def _read_run_file(self, files: contextlib.ExitStack) -> scan.RunFile | None:
        """What ``run.h5`` says, which stays open; its plan is held against that of the directory."""
        path = self.root / schema.RUN_FILE
        if not path.exists():
            return None
        read: scan.RunFile | None = None
        with _findings(self.inspection, path):
            self.inspection.bytes += digests.regular_size(path)
            read = files.enter_context(scan.scanned_run_file(path, self.plan))
        if read is None:
            return None
        if self.plan is not None and read.plan != self.plan:
            error = StoreError(
                f"{path} holds another plan than {schema.PLAN_FILE}",
                expected=f"plan {self.plan.digest[:80]}",
                got=f"plan {read.plan.digest[:80]}",
                hint=f"`equivengine resume` makes {schema.RUN_FILE} again",
            )
            self.inspection.findings.append(Finding(path, "replaced", error, (), identity_of(path)))
        return read

    def _read_shard(self, path: Path) -> None:
        packed = path.name.startswith(schema.PACK_PREFIX)
        ours = layout.is_in_place(self.root, path)
        named = (path.stem,) if schema.is_unit_id(path.stem) else ()
        with _findings(self.inspection, path, self._of_plan(named)):
            self.inspection.shards += 1
            self.inspection.bytes += digests.regular_size(path)
            unit_ids = scan.scan_shard(path)
            if not packed and (not ours or unit_ids != [path.stem]):
                raise _Misplaced(unit_ids)
            strange = [] if self.plan is None else [one for one in unit_ids if one not in self.planned]
            if packed:
                self.units.add_packed(unit_ids, str(path.relative_to(self.root)))
            else:
                self.units.add(path.stem)
            if strange and len(strange) == len(unit_ids):
                raise _Foreign(strange)

    def _read_failures(self) -> dict[str, layout.Failure]:
        failures = {}
        for path in layout.failure_files(self.root):
            with _findings(self.inspection, path):
                self.inspection.failures += 1
                self.inspection.bytes += digests.regular_size(path)
                failure = layout.read_failure(path)
                layout.check_canonical(path)
                if self.plan is not None and path.stem not in self.planned:
                    raise _Foreign([path.stem])
                failures[path.stem] = failure
        return failures

    def _compare(
        self,
        manifest: scan.StoredManifest,
        consolidated: dict[str, layout.Failure],
        failures: dict[str, layout.Failure],
    ) -> None:
        """What ``run.h5`` was made from, against what is there."""
        found, common = self.inspection, 0
        spoilt = {finding.path for finding in found.findings if finding.kind != "foreign"}
        for unit_id, entry in manifest.entries():
            if unit_id not in self.units:
                if self.root / entry.shard not in spoilt and not self._is_there(unit_id):
                    self._lost(unit_id, entry)
                continue
            common += 1
            shard = self.root / self.units[unit_id]  # what the manifest calls a path is opened only if it is ours
            if shard not in spoilt:
                self._hold_against(shard, entry)
                if self.units.is_packed(unit_id):
                    spoilt.add(shard)  # looked at once
        kept = {unit_id: failure for unit_id, failure in failures.items() if unit_id not in self.units}
        other = not len(manifest) == len(self.units) == common
        found.outdated = bool(found.findings) or other or consolidated != kept

    def _is_there(self, unit_id: str) -> bool:
        """Whether a shard has that name, be it damaged, or published since they were listed."""
        return schema.is_unit_id(unit_id) and (self.root / schema.shard_path(unit_id)).exists()

    def _lost(self, unit_id: str, entry: scan.ManifestEntry) -> None:
        path = self.root / schema.shard_path(unit_id)
        planned = self._of_plan((unit_id,))
        error = StoreError(
            f"{path} is gone: {schema.RUN_FILE} was made from it",
            expected=f"sha256 {entry.sha256[:64]}",
            got="no file",
            hint="`equivengine resume` computes its unit again, and keeps the run.h5 that holds the former result"
            if planned
            else f"nothing: the plan does not list its unit, and {schema.RUN_FILE} still holds it",
        )
        self.inspection.findings.append(Finding(path, "lost", error, planned))

    def _hold_against(self, shard: Path, entry: scan.ManifestEntry) -> None:
        with _findings(self.inspection, shard):
            actual, size = digests.sha256_of(shard), digests.regular_size(shard)
            relative = str(shard.relative_to(self.root))
            if (actual, size, relative) != (entry.sha256, entry.size, entry.shard):
                error = StoreError(
                    f"{shard} is not the shard that {schema.RUN_FILE} was made from",
                    expected=f"sha256 {entry.sha256[:64]}, {entry.size} bytes, {entry.shard[:200]!r}",
                    got=f"sha256 {actual}, {size} bytes, {relative!r}",
                    hint=f"`equivengine resume` makes {schema.RUN_FILE} again, and keeps the former one",
                )
                self.inspection.findings.append(Finding(shard, "replaced", error, (), identity_of(shard)))

    def _of_plan(self, unit_ids: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(unit_id for unit_id in unit_ids if unit_id in self.planned)


class _Misplaced(Exception):
    """A shard that is whole and lies under a name that is not its own."""

    def __init__(self, unit_ids: list[str]) -> None:
        super().__init__()
        self.unit_ids = unit_ids


class _Foreign(_Misplaced):
    """A shard or failure that is whole, of units that the plan does not list."""


@contextlib.contextmanager
def _findings(inspection: Inspection, path: Path, unit_ids: tuple[str, ...] = ()) -> Iterator[None]:
    """Collect what is wrong with one file; a file that another process has moved or removed meanwhile is nothing."""
    identity = identity_of(path)
    try:
        with refusal.damage(path):
            try:
                yield
            except _Foreign as foreign:
                error = StoreError(
                    f"{path} is whole, but belongs to another run",
                    expected="a unit of the plan",
                    got=f"unit {', '.join(foreign.unit_ids)[:200]}",
                    hint=f"`equivengine resume` moves it to {schema.FOREIGN}/; put it where it belongs",
                )
                inspection.findings.append(Finding(path, "foreign", error, (), identity))
            except _Misplaced as misplaced:
                error = StoreError(
                    f"{path} holds other units than its name says",
                    expected=f"unit {path.stem[:80]}",
                    got=f"unit {', '.join(misplaced.unit_ids)[:200] or 'none'}",
                    hint=refusal.next_step(path),
                )
                inspection.findings.append(Finding(path, "misplaced", error, unit_ids, identity))
    except StoreError as error:
        if identity_of(path) == identity or path.exists():
            kind: Kind = "misplaced" if isinstance(error, scan.Mismatch) else "damaged"
            inspection.findings.append(Finding(path, kind, error, unit_ids, identity))


def identity_of(path: Path) -> tuple[int, int, int, int] | None:
    """Device, inode, size and time of a file (not of what a link leads to); None if there is none."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
