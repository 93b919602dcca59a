"""Tables with a row for each unit of a probe: a first pass over the units finds their columns, a second one fills them.

What is kept of the units between the passes is what their columns are called and say, and no unit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from equivengine.errors import StoreError
from equivengine.report.tables import Cells, Column, Kind, UnitRow, UnitTable
from equivengine.store.tables import sample_text

#: float64 holds every integer up to here; larger ones stand beside fractions as texts.
EXACT = 1 << 53


def wide_tables(rows: Iterable[UnitRow]) -> list[UnitTable]:
    """One table for each probe, called ``units-PROBE``; characters that not every file system takes become ``_``."""
    seen: dict[str, _Seen] = {}
    for row in rows:
        seen.setdefault(row.unit.probe, _Seen(row.unit.probe)).take(row)
    tables: dict[str, UnitTable] = {}
    for probe, found in seen.items():
        name = stem = "units-" + re.sub(r"[^A-Za-z0-9_.+-]+", "_", probe)[:80]
        number = 1
        while name.lower() in tables:  # some file systems do not tell cases apart
            number += 1
            name = f"{stem}-{number}"
        tables[name.lower()] = found.table(name)
    return list(tables.values())


def _seconds(row: UnitRow) -> float | None:
    seconds = row.provenance.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


def _ids(row: UnitRow) -> str:
    return json.dumps([sample.id for sample in row.unit.samples], ensure_ascii=False)


#: What every unit has: columns, and their cells.
_FACTS: tuple[tuple[Column, Callable[[UnitRow], Any]], ...] = (
    (Column("unit_id", "text", "", "sha256 over everything that determines the result"), lambda row: row.unit_id),
    (Column("model", "text", "", "model"), lambda row: row.unit.model),
    (Column("sample", "text", "", "short names of the samples; of a set the first"), lambda row: sample_text(row.unit)),
    (Column("status", "text", "", "ok, not_converged, or failed: no result"), lambda row: row.status),
    (Column("unit.message", "text", "", "advice, remark, or why it failed"), lambda row: row.message),
    (Column("unit.error", "text", "", "class of the exception of a failed unit"), lambda row: row.error or None),
    (Column("unit.probe", "text", "", "probe"), lambda row: row.unit.probe),
    (Column("unit.probe_version", "text", "", "version of the probe"), lambda row: row.unit.probe_version),
    (Column("unit.samples", "text", "", "short names of all samples, a JSON list"), _ids),
    (Column("unit.params", "text", "", "parameters of the probe, a JSON object"), lambda row: row.unit.params),
    (Column("unit.seed", "integer", "", "seed of everything random"), lambda row: row.unit.seed),
    (Column("unit.precision", "text", "", "precision asked for"), lambda row: row.unit.precision),
    (Column("unit.weights_digest", "text", "", "sha256 of the weights"), lambda row: row.unit.weights_digest),
    (Column("unit.device", "text", "", "device"), lambda row: row.provenance.get("device", {}).get("name")),
    (Column("unit.version", "text", "", "version of equivengine"), lambda row: row.provenance.get("equivengine")),
    (Column("unit.started", "text", "", "when it was started, UTC"), lambda row: row.provenance.get("started")),
    (Column("unit.seconds", "number", "s", "wall time"), _seconds),
)


@dataclass
class _Param:
    """A parameter: its value in the first unit (None where it is absent), and what the others have."""

    first: Any
    varies: bool = False
    kinds: set[type] = field(default_factory=set)
    largest: int = 0

    def take(self, value: Any) -> None:
        self.varies |= value != self.first
        if value is not None:
            self.kinds.add(type(value))
            if type(value) is int:
                self.largest = max(self.largest, abs(value))

    @property
    def kind(self) -> Kind:
        if self.kinds == {bool}:
            return "flag"
        if self.kinds == {int} and self.largest < 1 << 63:
            return "integer"
        return "number" if self.kinds <= {int, float} and self.largest <= EXACT else "text"


@dataclass
class _Scalar:
    """A scalar: all its units and descriptions, whether some unit has an interval or observations, all are binary."""

    group: str
    units: dict[str, None] = field(default_factory=dict)
    said: dict[str, None] = field(default_factory=dict)
    interval: bool = False
    n: bool = False
    binary: bool = True

    def columns(self, name: str) -> Iterator[Column]:
        unit, said = "; ".join(self.units), "; ".join(self.said)
        yield Column(name, "number", unit, f"{said}: 1 is yes, 0 is no" if self.binary else said, self.group)
        if self.interval:
            for end, word in (("low", "lower"), ("high", "upper")):
                yield Column(f"{name}.{end}", "number", unit, f"{said}: {word} end of the 95% interval", self.group)
        if self.n:
            yield Column(f"{name}.n", "integer", "", f"{said}: observations", self.group)


class _Seen:
    """What the units of a probe have, as far as they were seen."""

    def __init__(self, probe: str) -> None:
        self._probe, self._count = probe, 0
        self._params: dict[str, _Param] = {}
        self._scalars: dict[str, _Scalar] = {}
        self._checks: dict[str, dict[str, None]] = {}

    def take(self, row: UnitRow) -> None:
        params = json.loads(row.unit.params)
        for name in params:
            if name not in self._params:  # units before this one have none
                self._params[name] = _Param(None if self._count else params[name])
        for name, param in self._params.items():
            param.take(params.get(name))
        for name, scalar in row.summary.items():
            seen = self._scalars.setdefault(name, _Scalar(scalar.group))
            seen.units[scalar.unit] = seen.said[scalar.description] = None
            seen.interval |= scalar.interval is not None
            seen.n |= scalar.n is not None
            seen.binary &= scalar.binary
        for name, check in row.checks.items():
            self._checks.setdefault(name, {})[check.description] = None
        self._count += 1

    def table(self, name: str) -> UnitTable:
        """The table of these units, under a name."""
        varying = {param: seen.kind for param, seen in self._params.items() if seen.varies}
        columns = [column for column, _ in _FACTS]
        columns += [Column(f"param.{param}", kind, "", f"parameter {param}") for param, kind in varying.items()]
        for scalar, seen in self._scalars.items():
            columns += seen.columns(scalar)
        for check, said in self._checks.items():
            text = "; ".join(said)
            columns.append(Column(f"check.{check}", "number", "", f"{text}: value", "checks"))
            columns.append(Column(f"check.{check}.bound", "number", "", f"{text}: bound", "checks"))
            columns.append(Column(f"check.{check}.passed", "flag", "", f"{text}: passed", "checks"))

        def rows_of(row: UnitRow) -> Iterator[Cells]:
            if row.unit.probe == self._probe:
                self._check(row)
                yield self._cells(row, varying)

        return UnitTable(name, columns, rows_of, self._probe)

    def _check(self, row: UnitRow) -> None:
        if row.summary.keys() <= self._scalars.keys() and row.checks.keys() <= self._checks.keys():
            return
        raise StoreError(
            f"the result of unit {row.unit_id} was replaced while it was read",
            expected="a run that nothing computes anew meanwhile",
            hint="export it again when `equivengine resume` is done",
        )

    def _cells(self, row: UnitRow, varying: dict[str, Kind]) -> list[Any]:
        cells = [cell(row) for _, cell in _FACTS]
        params = json.loads(row.unit.params) if varying else {}
        for name, kind in varying.items():
            value = params.get(name)
            if kind == "text" and value is not None and not isinstance(value, str):
                value = json.dumps(value, ensure_ascii=False)
            cells.append(value)
        for name, seen in self._scalars.items():
            scalar = row.summary.get(name)
            cells.append(None if scalar is None else scalar.value)
            if seen.interval:
                cells += (None, None) if scalar is None or scalar.interval is None else scalar.interval
            if seen.n:
                cells.append(None if scalar is None else scalar.n)
        for name in self._checks:
            check = row.checks.get(name)
            cells += (None, None, None) if check is None else (check.value, check.bound, check.passed)
        return cells
