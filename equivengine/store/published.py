"""One published unit, as it is read from a shard or from ``run.h5``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from equivengine.contracts.result import Check, ProbeResult, Scalar, Status
from equivengine.contracts.unit import Unit
from equivengine.store import pictures, units
from equivengine.store.lazy import LazyArrays, LazyPictures, Source


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


def read_value(source: Source, unit_id: str, scalar: str) -> float:
    """The value of a scalar of a published unit; NaN if it has none such.

    Raises:
        StoreError: If it cannot be read.
    """
    with source.unit(unit_id) as group:
        found = units.read_record(group).summary.get(scalar)
    return math.nan if found is None else found.value


def read_unit(source: Source, unit_id: str) -> UnitRecord:
    """A published unit, of which arrays and pictures are read when they are asked for.

    Raises:
        StoreError: If it cannot be read.
    """
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
