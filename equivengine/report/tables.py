"""A run as tables: one row for each unit (`wide`), or for each number (long). Files of them are made by `export`.

Tables of units know their columns and what row a unit has in them; they hold no units.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from equivengine.contracts.result import Check, Scalar
from equivengine.contracts.unit import Unit
from equivengine.errors import StoreError
from equivengine.store import schema
from equivengine.store.run import Failure, Run, UnitRecord
from equivengine.store.tables import sample_text

Kind = Literal["text", "number", "integer", "flag"]
#: A row: one value for each column; None where there is none. NaN is a number that could not be measured.
Cells = Sequence[Any]

#: Provenance that tables tell of; the rest is in the document.
TOLD = ("device", "equivengine", "started", "seconds")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name. Only dotted names and `schema.TABLE_NAMES` are ours; a probe's names are identifiers.
        kind: "text", "number" (float64), "integer" (int64) or "flag".
        unit: Unit of the values.
        description: One line.
        group: Heading under which ``show`` lists it.
    """

    name: str
    kind: Kind
    unit: str = ""
    description: str = ""
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table under a name that files can have.

    Attributes:
        name: Its name.
        columns: Its columns.
        rows: Its rows.
    """

    name: str
    columns: Sequence[Column]
    rows: Sequence[Cells]


@dataclass(frozen=True)
class UnitRow:
    """A unit that was published, or that failed (``status`` is "failed" and ``error`` the class of the exception).

    Of provenance it has what `TOLD` names: records are let go of.
    """

    unit_id: str
    unit: Unit
    status: str
    message: str
    error: str
    summary: Mapping[str, Scalar]
    checks: Mapping[str, Check]
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class UnitTable:
    """A table that units fill, one after the other.

    Attributes:
        name: Its name.
        columns: Its columns.
        rows_of: The rows that a unit has in it; none if it does not belong there.
        probe: The probe whose units are in it; empty where those of all are.
    """

    name: str
    columns: Sequence[Column]
    rows_of: Callable[[UnitRow], Iterable[Cells]]
    probe: str = ""


def each_row(run: Run, probe: str | None = None) -> Iterator[tuple[UnitRow, UnitRecord | None]]:
    """Published and failed units, of one probe or of all, in the order of the plan; with the record of a published one.

    One is read after the other, and none is kept.

    Raises:
        StoreError: If there are none, or a shard cannot be read.
    """
    names: dict[str, None] = {}
    found = False
    for unit_id, unit in _in_plan_order(run):
        row, record = (_failed(unit_id, unit), None) if isinstance(unit, Failure) else (_published(unit), unit)
        names[row.unit.probe] = None
        if probe is None or row.unit.probe == probe:
            found = True
            yield row, record
    if not found:
        raise StoreError(
            f"{run.path} has no results" + ("" if probe is None else f" of probe {probe!r}"),
            expected=", ".join(names) or "a run with results",
            hint="choose one of these" if names else f"equivengine resume {run.path}",
        )


def _in_plan_order(run: Run) -> Iterator[tuple[str, UnitRecord | Failure]]:
    """Units by id. Both kinds come as the plan orders them, and after them, sorted, those that it does not list."""
    published: Iterator[tuple[str, UnitRecord | Failure]] = ((record.unit_id, record) for record in run.each())
    if not run.failures:
        return published
    planned = schema.plan_units(run.plan)

    def place(unit: tuple[str, UnitRecord | Failure]) -> tuple[int, str]:
        found = planned.find(unit[0])
        return (len(planned) if found is None else found, unit[0])

    return heapq.merge(published, run.failures.items(), key=place)


def _published(record: UnitRecord) -> UnitRow:
    told = {name: record.provenance[name] for name in TOLD if name in record.provenance}
    return UnitRow(record.unit_id, record.unit, record.status, record.message, "", record.summary, record.checks, told)


def _failed(unit_id: str, failure: Failure) -> UnitRow:
    return UnitRow(unit_id, failure.unit, "failed", failure.message, failure.error_type, {}, {}, failure.provenance)


#: Which unit a row of a long table is about.
_WHOSE = (
    Column("unit_id", "text", "", "id of the unit"),
    Column("probe", "text", "", "probe"),
    Column("model", "text", "", "model"),
    Column("sample", "text", "", "short names of the samples; of a set the first"),
    Column("status", "text", "", "ok or not_converged"),
)


def _whose(row: UnitRow) -> tuple[str, ...]:
    return (row.unit_id, row.unit.probe, row.unit.model, sample_text(row.unit), row.status)


def long_scalars() -> UnitTable:
    """One row for each scalar of each unit."""

    def rows_of(row: UnitRow) -> Iterator[Cells]:
        whose = _whose(row) if row.summary else ()
        for name, scalar in row.summary.items():
            ends = scalar.interval or (None, None)
            told = (scalar.unit, scalar.description, scalar.group, scalar.binary)
            yield (*whose, name, scalar.value, *ends, scalar.n, *told)

    return UnitTable(
        "scalars",
        [
            *_WHOSE,
            Column("name", "text", "", "name of the scalar"),
            Column("value", "number", "", "value; NaN: not measurable"),
            Column("low", "number", "", "lower end of the 95% interval"),
            Column("high", "number", "", "upper end of the 95% interval"),
            Column("n", "integer", "", "observations"),
            Column("unit", "text", "", "unit of the value"),
            Column("description", "text", "", "what it is"),
            Column("group", "text", "", "heading"),
            Column("binary", "flag", "", "whether it is yes (1) or no (0)"),
        ],
        rows_of,
    )


def long_checks() -> UnitTable:
    """One row for each check of each unit."""

    def rows_of(row: UnitRow) -> Iterator[Cells]:
        whose = _whose(row) if row.checks else ()
        for name, check in row.checks.items():
            yield (*whose, name, check.passed, check.value, check.bound, check.description)

    return UnitTable(
        "checks",
        [
            *_WHOSE,
            Column("name", "text", "", "name of the check"),
            Column("passed", "flag", "", "whether it held"),
            Column("value", "number", "", "what was measured"),
            Column("bound", "number", "", "what it was held against"),
            Column("description", "text", "", "the claim"),
        ],
        rows_of,
    )


def dictionary(tables: Iterable[UnitTable]) -> Table:
    """What the columns of tables are: one row for each column."""
    rows = [
        (table.name, column.name, column.kind, column.unit, column.description, column.group)
        for table in tables
        for column in table.columns
    ]
    names = ("table", "column", "kind", "unit", "description", "group")
    return Table("columns", [Column(name, "text") for name in names], rows)
