"""Read a run: from its directory, also while it is being written, or from ``run.h5`` alone."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from equivengine.contracts.result import Check, ProbeResult, Scalar, Status
from equivengine.contracts.unit import Unit
from equivengine.errors import EngineError, StoreError
from equivengine.store import guard, layout, pictures, schema, units
from equivengine.store.columns import ScalarColumn, scalar_columns
from equivengine.store.enough import Ending
from equivengine.store.layout import Failure
from equivengine.store.lazy import LazyArrays, LazyPictures, Source, StoredArray

if TYPE_CHECKING:
    import xarray

__all__ = [
    "Failure",
    "LazyArrays",
    "LazyPictures",
    "Run",
    "ScalarColumn",
    "StoredArray",
    "UnitRecord",
    "open_run",
]


@dataclass(frozen=True)
class UnitRecord:
    """A published unit.

    Attributes:
        unit_id: Its id.
        unit: What was asked for.
        status: The probe's own status.
        message: Its advice or remark.
        summary: Scalars by name, in the order of the probe.
        checks: Consistency checks by name.
        arrays: Arrays by name; each access reads one from disk, ``arrays.open(name)`` reads parts (`LazyArrays`).
        provenance: Where and with what it was run.
        probe_provenance: What the probe itself recorded.
        pictures: Pictures by name; each access reads one from disk (`LazyPictures`).
    """

    unit_id: str
    unit: Unit
    status: Status
    message: str
    summary: dict[str, Scalar]
    checks: dict[str, Check]
    arrays: LazyArrays
    provenance: dict[str, Any]
    probe_provenance: dict[str, Any]
    pictures: LazyPictures

    def result(self) -> ProbeResult:
        """The probe's result as it was published; reads every array and picture.

        Raises:
            StoreError: If an array or a picture cannot be read.
        """
        return ProbeResult(
            dict(self.arrays),
            self.summary,
            self.checks,
            self.status,
            self.message,
            self.probe_provenance,
            dict(self.pictures),
        )


class Run:
    """A run as it stood when it was opened. Obtain it by `open_run`; a context manager.

    Attributes:
        path: What was opened.
        plan: The frozen plan.
        plan_digest: Its digest.
        failures: Last failure by id of each unit that has no result.
    """

    def __init__(
        self, path: Path, stored: layout.StoredPlan, sources: Mapping[str, Source], failures: Mapping[str, Failure]
    ) -> None:
        self.path = path
        self.plan = stored.plan
        self.plan_digest = stored.digest
        self._sources = {unit_id: sources[unit_id] for unit_id in layout.in_plan_order(stored.plan, sources)}
        self.failures = {unit_id: failures[unit_id] for unit_id in layout.in_plan_order(stored.plan, failures)}
        self._enough = stored.enough
        self._stack = contextlib.ExitStack()

    @property
    def published(self) -> list[str]:
        """Ids of the published units, in the order of the plan."""
        return list(self._sources)

    @property
    def missing(self) -> list[str]:
        """Ids of the plan's units that are needed and neither published nor failed, in its order.

        Raises:
            StoreError: If a result that decides what is needed cannot be read.
        """
        planned, unneeded = schema.plan_units(self.plan), set(self.unneeded)
        known = (self._sources, self.failures, unneeded)
        return [unit_id for unit_id in planned if not any(unit_id in some for some in known)]

    @cached_property
    def endings(self) -> list[Ending]:
        """Where the image sets stand that a rule of the plan may end early (``[[stop]]``); none without such rules.

        Raises:
            StoreError: If a result that decides it cannot be read.
        """
        return [] if self._enough is None else self._enough.endings(self.value_of)

    @property
    def unneeded(self) -> list[str]:
        """Ids of the units that did not run and need not: a scalar is known well enough without them.

        Raises:
            StoreError: If a result that decides it cannot be read.
        """
        unneeded = [] if self._enough is None else self._enough.unneeded(self.endings)
        return [unit_id for unit_id in unneeded if unit_id not in self._sources and unit_id not in self.failures]

    def value_of(self, unit_id: str, scalar: str) -> float | None:
        """The value of a scalar of a unit: NaN where the unit failed or has none such, None where it has not run.

        Raises:
            StoreError: If its shard cannot be read.
        """
        if unit_id not in self._sources:
            return math.nan if unit_id in self.failures else None
        return read_value(self._sources[unit_id], unit_id, scalar)

    @property
    def probes(self) -> list[str]:
        """Names of the probes with published units, in the order of the plan.

        Raises:
            StoreError: If a shard cannot be read.
        """
        return list(dict.fromkeys(record.unit.probe for record in self._records))

    def units(self, probe: str | None = None) -> list[UnitRecord]:
        """Published units, of one probe or of all, in the order of the plan.

        Raises:
            StoreError: If a shard cannot be read.
        """
        return [record for record in self._records if probe is None or record.unit.probe == probe]

    def each(self) -> Iterator[UnitRecord]:
        """Published units in the order of the plan, each read when its turn comes; none is kept, unlike by `units`.

        Raises:
            StoreError: If a shard cannot be read.
        """
        return (_read_record(source, unit_id) for unit_id, source in self._sources.items())

    def results(self, probe: str) -> Iterator[tuple[Unit, ProbeResult]]:
        """Unit and result, one after the other; the arrays and pictures of one at a time are in memory.

        Raises:
            StoreError: If the run has no results of this probe, or a shard cannot be read.
        """
        return ((record.unit, record.result()) for record in self._units_of(probe))

    def summary(self, probe: str) -> dict[str, ScalarColumn]:
        """Scalars over the units of a probe, by name.

        Raises:
            StoreError: If the run has no results of this probe, or a shard cannot be read.
        """
        return scalar_columns([record.summary for record in self._units_of(probe)])

    @overload
    def to_xarray(
        self, probe: None = None, *, model: str | None = None, arrays: bool | Collection[str] = True
    ) -> xarray.DataTree: ...

    @overload
    def to_xarray(
        self, probe: str, *, model: str | None = None, arrays: bool | Collection[str] = True
    ) -> xarray.Dataset: ...

    def to_xarray(
        self, probe: str | None = None, *, model: str | None = None, arrays: bool | Collection[str] = True
    ) -> xarray.DataTree | xarray.Dataset:
        """Results as xarray objects; needs the extra ``equivengine[xarray]``.

        A probe is a dataset along the dimension ``unit``, in the order of `units`. Scalars are in memory; arrays are
        read where their values are used, and only what is selected. Nothing is kept: ``.load()`` does that. Arrays can
        be read while the run is open. ``docs/export.md`` says what variables are called, and how arrays whose
        lengths differ between units are padded.

        Args:
            probe: Name of a probe; None for a tree of all, with one dataset for each probe and model.
            model: Units of this model only.
            arrays: Whether arrays are wanted, or the names of those that are.

        Raises:
            EngineError: If xarray is not installed.
            StoreError: If the run has no such results, or a shard cannot be read.
        """
        try:
            from equivengine.store import labelled
        except ModuleNotFoundError as error:
            raise EngineError(
                "results as xarray objects need packages that are not installed",
                got=error,
                hint='pip install "equivengine[xarray]"',
            ) from error
        records = self.units() if probe is None else self._units_of(probe)
        chosen = [record for record in records if model is None or record.unit.model == model]
        if model is not None and not chosen:
            models = dict.fromkeys(record.unit.model for record in records)
            raise StoreError(
                f"{self.path} has no such results of model {model!r}",
                expected=", ".join(models) or "a run with results",
            )
        names = labelled.names_of(chosen, arrays)
        facts = {"run": str(self.path), "plan_digest": self.plan_digest}
        if probe is not None:
            return labelled.dataset(chosen, names, facts)
        counts = {"published": len(self.published), "failed": len(self.failures), "missing": len(self.missing)}
        return labelled.tree(chosen, names, {**facts, **counts})

    def close(self) -> None:
        """Close files; arrays and pictures that were not read cannot be read any more."""
        for source in self._sources.values():
            source.closed = True
        self._stack.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _units_of(self, probe: str) -> list[UnitRecord]:
        records = self.units(probe)
        if not records:
            raise StoreError(
                f"{self.path} has no results of probe {probe!r}",
                expected=", ".join(self.probes) or "a run with results",
                got=probe,
            )
        return records

    @cached_property
    def _records(self) -> list[UnitRecord]:
        return [_read_record(source, unit_id) for unit_id, source in self._sources.items()]


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a run for reading.

    Args:
        path: A run directory, whose shards are read (``run.h5`` is not), or a ``run.h5``, which stands alone.

    Raises:
        StoreError: If there is no run, or it is damaged, hostile, or of a newer major version.
    """
    root = Path(path).absolute()
    if not root.is_dir():
        return _open_run_file(root)
    if not (root / schema.PLAN_FILE).exists():
        raise StoreError(f"{root} holds no run", expected=schema.PLAN_FILE, hint="pass a run directory, or its run.h5")
    found = layout.find_units(root)
    sources = {relative: Source(root / relative, schema.SHARD_FORMAT) for relative in set(found.values())}
    return Run(
        root,
        layout.read_plan(root),
        {unit_id: sources[relative] for unit_id, relative in found.items()},
        layout.read_failures(root, found),
    )


def _open_run_file(path: Path) -> Run:
    with contextlib.ExitStack() as stack:
        source = Source(path, schema.RUN_FORMAT)
        source.file = stack.enter_context(guard.open_untrusted(path, schema.RUN_FORMAT))
        stored = layout.stored_plan(source.file, str(path))
        names = guard.names(guard.group(source.file, "units"), schema.MAX_UNITS)
        failures = layout.stored_failures(source.file, str(path))
        unit_ids = [name for name in names if schema.is_unit_id(name)]
        run = Run(path, stored, dict.fromkeys(unit_ids, source), failures)
        run._stack = source.opened = stack.pop_all()
    return run


def read_value(source: Source, unit_id: str, scalar: str) -> float:
    """The value of a scalar of a published unit; NaN if it has none such.

    Raises:
        StoreError: If it cannot be read.
    """
    with source.unit(unit_id) as group:
        found = units.read_record(group).summary.get(scalar)
    return math.nan if found is None else found.value


def _read_record(source: Source, unit_id: str) -> UnitRecord:
    with source.unit(unit_id) as group:
        found = units.read_record(group)
        return UnitRecord(
            unit_id=unit_id,
            unit=found.unit,
            status=found.status,
            message=found.message,
            summary=found.summary,
            checks=found.checks,
            arrays=LazyArrays(source, unit_id, units.array_names(group)),
            provenance=found.provenance,
            probe_provenance=found.probe_provenance,
            pictures=LazyPictures(source, unit_id, {name: name for name in pictures.picture_names(group)}),
        )
