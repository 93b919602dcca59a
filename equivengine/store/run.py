"""Read a run: from its directory, also while it is being written, or from ``run.h5`` alone."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
import os
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from equivengine.contracts.result import ProbeResult
from equivengine.contracts.unit import Unit
from equivengine.contracts.units import ID_BYTES, NO_IDS, UnitIds
from equivengine.errors import EngineError, StoreError
from equivengine.store import guard, layout, schema, units
from equivengine.store.columns import ScalarColumn, scalar_columns
from equivengine.store.enough import Ending
from equivengine.store.folder import require_run
from equivengine.store.layout import Failure
from equivengine.store.lazy import LazyArrays, LazyPictures, Opening, Source, StoredArray
from equivengine.store.published import UnitRecord, read_unit, read_value
from equivengine.store.record import Record
from equivengine.store.shards import IdsAsKnown, in_order, path_of

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


#: Units of runs up to this size are kept once they have been read: some 10 KB each.
KEPT_UNITS = 2_000


class Run:
    """A run as it stood when it was opened. Obtain it by `open_run`; a context manager.

    Attributes:
        path: What was opened.
        plan: The frozen plan.
        plan_digest: Its digest.
        failures: Last failure by id of each unit that has no result.
    """

    def __init__(
        self,
        path: Path,
        stored: layout.StoredPlan,
        unit_ids: UnitIds,
        source_of: Callable[[str], Source],
        failures: Mapping[str, Failure],
        opening: Opening,
    ) -> None:
        self.path = path
        self.plan = stored.plan
        self.plan_digest = stored.digest
        self._stored = stored
        self._unit_ids = unit_ids
        self._source_of, self._opening = source_of, opening
        self.failures = {unit_id: failures[unit_id] for unit_id in in_order(stored.unit_ids, failures)}
        self._enough = stored.enough
        self._stack = contextlib.ExitStack()

    @property
    def published(self) -> Sequence[str]:
        """Ids of the published units, in the order of the plan; 32 bytes each, each made when it is asked for."""
        return self._unit_ids

    @property
    def missing(self) -> Sequence[str]:
        """Ids of the plan's units that are needed and neither published nor failed, in its order; 32 bytes each.

        Raises:
            StoreError: If a result that decides what is needed cannot be read.
        """
        if self._unit_ids is self._stored.unit_ids:
            return NO_IDS
        known, found = (self._unit_ids, self.failures, set(self.unneeded)), IdsAsKnown(NO_IDS)
        for unit_id in self._stored.unit_ids:
            if not any(unit_id in some for some in known):
                found.append(unit_id)
        return found.made()

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
        return [unit_id for unit_id in unneeded if unit_id not in self._unit_ids and unit_id not in self.failures]

    def value_of(self, unit_id: str, scalar: str) -> float | None:
        """The value of a scalar of a unit: NaN where the unit failed or has none such, None where it has not run.

        Raises:
            StoreError: If its shard cannot be read.
        """
        if unit_id not in self._unit_ids:
            return math.nan if unit_id in self.failures else None
        return read_value(self._source_of(unit_id), unit_id, scalar)

    @property
    def probes(self) -> list[str]:
        """Names of the probes with published units, in the order of the plan.

        Raises:
            StoreError: If a shard cannot be read.
        """
        return list(self._by_probe)

    def units(self, probe: str | None = None) -> list[UnitRecord]:
        """Published units, of one probe or of all, in the order of the plan.

        All of them are in memory, and stay there for the next call if they are not more than `KEPT_UNITS`; `each` is
        for runs of many.

        Raises:
            StoreError: If a shard cannot be read.
        """
        if len(self._unit_ids) > KEPT_UNITS:
            return list(self.each(probe))
        return [record for record in self._records if probe is None or record.unit.probe == probe]

    def each(self, probe: str | None = None) -> Iterator[UnitRecord]:
        """Published units in the order of the plan, each read when its turn comes; none is kept, unlike by `units`.

        Args:
            probe: Those of one probe; None for all.

        Raises:
            StoreError: If a shard cannot be read.
        """
        chosen = self._unit_ids if probe is None else self._by_probe.get(probe, ())
        return (read_unit(self._source_of(unit_id), unit_id) for unit_id in chosen)

    def results(self, probe: str) -> Iterator[tuple[Unit, ProbeResult]]:
        """Unit and result, one after the other; the arrays and pictures of one at a time are in memory.

        Raises:
            StoreError: If the run has no results of this probe, or a shard cannot be read.
        """
        self._require(probe)
        records = self._records if len(self._unit_ids) <= KEPT_UNITS else self.each(probe)
        return ((record.unit, record.result()) for record in records if record.unit.probe == probe)

    def summary(self, probe: str) -> dict[str, ScalarColumn]:
        """Scalars over the units of a probe, by name.

        Raises:
            StoreError: If the run has no results of this probe, or a shard cannot be read.
        """
        self._require(probe)
        if len(self._unit_ids) <= KEPT_UNITS:
            return scalar_columns(record.summary for record in self.units(probe))
        return scalar_columns(self._record(unit_id).summary for unit_id in self._by_probe[probe])

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
        if probe is not None:
            self._require(probe)
        records = self.units(probe)
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
        self._opening.closed = True
        self._stack.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _require(self, probe: str) -> None:
        if probe not in self._by_probe:
            raise StoreError(
                f"{self.path} has no results of probe {probe!r}",
                expected=", ".join(self.probes) or "a run with results",
                got=probe,
            )

    @cached_property
    def _records(self) -> list[UnitRecord]:
        return list(self.each())

    @cached_property
    def _by_probe(self) -> dict[str, UnitIds]:
        """Ids of the units of each probe. The plan says it of those that it lists in groups; others are read."""
        numbers: dict[str, int] = {}
        of_units = array("I")
        for unit_id, planned in zip(self._unit_ids, self._planned_probes(), strict=True):
            probe = self._record(unit_id).unit.probe if planned is None else planned
            of_units.append(numbers.setdefault(probe, len(numbers)))
        if len(numbers) == 1:
            return dict.fromkeys(numbers, self._unit_ids)
        raw = np.frombuffer(self._unit_ids.raw, dtype=np.uint8).reshape(-1, ID_BYTES)
        each = np.array(of_units)
        return {probe: UnitIds(raw[each == number].tobytes()) for probe, number in numbers.items()}

    def _planned_probes(self) -> Iterator[str | None]:
        """The probe of each published unit; None where the unit has to be read for it."""
        if len(self._unit_ids) <= KEPT_UNITS:  # they are kept anyway
            return (record.unit.probe for record in self._records)
        planned = self._stored.units
        if planned is None:
            return itertools.repeat(None, len(self._unit_ids))
        probes = [(places.stop, group.common.probe) for group, places in planned.places()]
        stops = [stop for stop, _ in probes]
        complete = self._unit_ids is planned.ids
        places = range(len(planned)) if complete else map(planned.ids.find, self._unit_ids)
        return (None if place is None else probes[bisect.bisect_right(stops, place)][1] for place in places)

    def _record(self, unit_id: str) -> Record:
        with self._source_of(unit_id).unit(unit_id) as group:
            return units.read_record(group)


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
    require_run(root)
    stored = layout.read_plan(root)
    found, opening = layout.find_planned(root, stored.unit_ids), Opening()
    packed, failures = found.packed, layout.read_failures(root, found)

    def source_of(unit_id: str) -> Source:
        return Source(root / path_of(unit_id, packed), schema.SHARD_FORMAT, opening)

    return Run(root, stored, found.in_order(), source_of, failures, opening)


def _open_run_file(path: Path) -> Run:
    with contextlib.ExitStack() as stack:
        opening = Opening()
        source = Source(path, schema.RUN_FORMAT, opening)
        source.file = stack.enter_context(guard.open_untrusted(path, schema.RUN_FORMAT))
        stored = layout.stored_plan(source.file, str(path))
        found = units.ids_in(guard.group(source.file, "units"), stored.unit_ids)
        if found is not stored.unit_ids:
            found = in_order(stored.unit_ids, found)
        failures = layout.stored_failures(source.file, str(path))
        run = Run(path, stored, found, lambda unit_id: source, failures, opening)
        run._stack = source.opened = stack.pop_all()
    return run
