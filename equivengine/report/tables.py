"""A run as tables: one row for each unit (wide), or for each number (long). Files of them are made by `export`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from equivengine.contracts.result import Check, Scalar
from equivengine.contracts.unit import Unit
from equivengine.errors import StoreError
from equivengine.store.columns import scalar_columns, varying_params
from equivengine.store.layout import in_plan_order
from equivengine.store.run import Failure, Run, UnitRecord
from equivengine.store.tables import sample_text

Kind = Literal["text", "number", "integer", "flag"]

#: Provenance that tables tell of; the rest is in the document.
TOLD = ("device", "equivengine", "started", "seconds")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name. Only dotted names and `schema.TABLE_NAMES` are ours; a probe's names are identifiers.
        kind: "text", "number" (float64), "integer" (int64) or "flag".
        values: One for each row; None where there is none. NaN is a number that could not be measured.
        unit: Unit of the values.
        description: One line.
        group: Heading under which ``show`` lists it.
    """

    name: str
    kind: Kind
    values: Sequence[Any]
    unit: str = ""
    description: str = ""
    group: str = ""


@dataclass(frozen=True)
class Table:
    """Columns of equal length under a name that files can have."""

    name: str
    columns: Sequence[Column]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.columns[0].values)


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


def unit_rows(run: Run, probe: str | None = None) -> list[UnitRow]:
    """Published and failed units, of one probe or of all, in the order of the plan.

    Raises:
        StoreError: If there are none, or a shard cannot be read.
    """
    return [row for row, _ in each_row(run, probe)]


def each_row(run: Run, probe: str | None = None) -> Iterator[tuple[UnitRow, UnitRecord | None]]:
    """As `unit_rows`, one after the other, each with its record if it was published.

    Raises:
        StoreError: If there are none, or a shard cannot be read.
    """
    names: dict[str, None] = {}
    found = False
    records = run.each()
    for unit_id in in_plan_order(run.plan, {**dict.fromkeys(run.published), **run.failures}):
        record = None if unit_id in run.failures else next(records)
        row = _failed(unit_id, run.failures[unit_id]) if record is None else _published(record)
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


def _published(record: UnitRecord) -> UnitRow:
    told = {name: record.provenance[name] for name in TOLD if name in record.provenance}
    return UnitRow(record.unit_id, record.unit, record.status, record.message, "", record.summary, record.checks, told)


def _failed(unit_id: str, failure: Failure) -> UnitRow:
    return UnitRow(unit_id, failure.unit, "failed", failure.message, failure.error_type, {}, {}, failure.provenance)


def wide_table(rows: Sequence[UnitRow], name: str) -> Table:
    """One row for each unit of a probe, a column for each fact, scalar and check."""
    columns = [
        _texts("unit_id", rows, lambda row: row.unit_id, "sha256 over everything that determines the result"),
        _texts("model", rows, lambda row: row.unit.model, "model"),
        _texts("sample", rows, lambda row: sample_text(row.unit), "short names of the samples; of a set the first"),
        _texts("status", rows, lambda row: row.status, "ok, not_converged, or failed: no result"),
        _texts("unit.message", rows, lambda row: row.message, "advice, remark, or why it failed"),
        _texts("unit.error", rows, lambda row: row.error or None, "class of the exception of a failed unit"),
        _texts("unit.probe", rows, lambda row: row.unit.probe, "probe"),
        _texts("unit.probe_version", rows, lambda row: row.unit.probe_version, "version of the probe"),
        _texts("unit.samples", rows, _ids, "short names of all samples, a JSON list"),
        _texts("unit.params", rows, lambda row: row.unit.params, "parameters of the probe, a JSON object"),
        Column("unit.seed", "integer", [row.unit.seed for row in rows], "", "seed of everything random"),
        _texts("unit.precision", rows, lambda row: row.unit.precision, "precision asked for"),
        _texts("unit.weights_digest", rows, lambda row: row.unit.weights_digest, "sha256 of the weights"),
        _texts("unit.device", rows, lambda row: row.provenance.get("device", {}).get("name"), "device"),
        _texts("unit.version", rows, lambda row: row.provenance.get("equivengine"), "version of equivengine"),
        _texts("unit.started", rows, lambda row: row.provenance.get("started"), "when it was started, UTC"),
        Column("unit.seconds", "number", [_seconds(row) for row in rows], "s", "wall time"),
        *_params(rows),
        *_scalars(rows),
        *_checks(rows),
    ]
    return Table(name, columns)


def long_scalars(rows: Iterable[UnitRow]) -> Table:
    """One row for each scalar of each unit."""
    cells = [(row, name, scalar) for row in rows for name, scalar in row.summary.items()]
    scalars = [scalar for _, _, scalar in cells]
    return Table(
        "scalars",
        [
            *_whose([row for row, _, _ in cells]),
            Column("name", "text", [name for _, name, _ in cells], "", "name of the scalar"),
            Column("value", "number", [scalar.value for scalar in scalars], "", "value; NaN: not measurable"),
            Column("low", "number", [_end(scalar, 0) for scalar in scalars], "", "lower end of the 95% interval"),
            Column("high", "number", [_end(scalar, 1) for scalar in scalars], "", "upper end of the 95% interval"),
            Column("n", "integer", [scalar.n for scalar in scalars], "", "observations"),
            Column("unit", "text", [scalar.unit for scalar in scalars], "", "unit of the value"),
            Column("description", "text", [scalar.description for scalar in scalars], "", "what it is"),
            Column("group", "text", [scalar.group for scalar in scalars], "", "heading"),
        ],
    )


def long_checks(rows: Iterable[UnitRow]) -> Table:
    """One row for each check of each unit."""
    cells = [(row, name, check) for row in rows for name, check in row.checks.items()]
    checks = [check for _, _, check in cells]
    return Table(
        "checks",
        [
            *_whose([row for row, _, _ in cells]),
            Column("name", "text", [name for _, name, _ in cells], "", "name of the check"),
            Column("passed", "flag", [check.passed for check in checks], "", "whether it held"),
            Column("value", "number", [check.value for check in checks], "", "what was measured"),
            Column("bound", "number", [check.bound for check in checks], "", "what it was held against"),
            Column("description", "text", [check.description for check in checks], "", "the claim"),
        ],
    )


def dictionary(tables: Iterable[Table]) -> Table:
    """What the columns of tables are: one row for each column."""
    cells = [(table.name, column) for table in tables for column in table.columns]
    return Table(
        "columns",
        [
            Column("table", "text", [name for name, _ in cells]),
            Column("column", "text", [column.name for _, column in cells]),
            Column("kind", "text", [column.kind for _, column in cells]),
            Column("unit", "text", [column.unit for _, column in cells]),
            Column("description", "text", [column.description for _, column in cells]),
            Column("group", "text", [column.group for _, column in cells]),
        ],
    )


def _texts(name: str, rows: Sequence[UnitRow], value: Callable[[UnitRow], str | None], description: str) -> Column:
    return Column(name, "text", [value(row) for row in rows], "", description)


def _whose(rows: Sequence[UnitRow]) -> list[Column]:
    return [
        _texts("unit_id", rows, lambda row: row.unit_id, "id of the unit"),
        _texts("probe", rows, lambda row: row.unit.probe, "probe"),
        _texts("model", rows, lambda row: row.unit.model, "model"),
        _texts("sample", rows, lambda row: sample_text(row.unit), "short names of the samples; of a set the first"),
        _texts("status", rows, lambda row: row.status, "ok or not_converged"),
    ]


def _ids(row: UnitRow) -> str:
    return json.dumps([sample.id for sample in row.unit.samples], ensure_ascii=False)


def _seconds(row: UnitRow) -> float | None:
    seconds = row.provenance.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


def _params(rows: Sequence[UnitRow]) -> list[Column]:
    varying, _ = varying_params([row.unit for row in rows])
    columns = []
    for name, values in varying.items():
        kinds = {type(value) for value in values if value is not None}
        kind: Kind = "text"
        if kinds == {bool}:
            kind = "flag"
        elif kinds == {int} and all(abs(value) < 1 << 63 for value in values if value is not None):
            kind = "integer"
        elif kinds <= {int, float}:
            kind = "number"
        else:
            values = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
        columns.append(Column(f"param.{name}", kind, values, "", f"parameter {name}"))
    return columns


def _scalars(rows: Sequence[UnitRow]) -> list[Column]:
    columns = []
    for name, like in scalar_columns([row.summary for row in rows]).items():
        cells = [row.summary.get(name) for row in rows]
        unit = "; ".join(dict.fromkeys(cell.unit for cell in cells if cell is not None))
        said = "; ".join(dict.fromkeys(cell.description for cell in cells if cell is not None))
        columns.append(
            Column(name, "number", [None if cell is None else cell.value for cell in cells], unit, said, like.group)
        )
        if any(cell is not None and cell.interval is not None for cell in cells):
            for place, (end, word) in enumerate((("low", "lower"), ("high", "upper"))):
                values = [None if cell is None else _end(cell, place) for cell in cells]
                title = f"{said}: {word} end of the 95% interval"
                columns.append(Column(f"{name}.{end}", "number", values, unit, title, like.group))
        if any(cell is not None and cell.n is not None for cell in cells):
            values = [None if cell is None else cell.n for cell in cells]
            columns.append(Column(f"{name}.n", "integer", values, "", f"{said}: observations", like.group))
    return columns


def _checks(rows: Sequence[UnitRow]) -> list[Column]:
    columns = []
    for name in dict.fromkeys(name for row in rows for name in row.checks):
        cells = [row.checks.get(name) for row in rows]
        said = "; ".join(dict.fromkeys(cell.description for cell in cells if cell is not None))
        for part, kind in (("", "number"), (".bound", "number"), (".passed", "flag")):
            field = part.removeprefix(".") or "value"
            values = [None if cell is None else getattr(cell, field) for cell in cells]
            columns.append(Column(f"check.{name}{part}", kind, values, "", f"{said}: {field}", "checks"))  # type: ignore[arg-type]  # mypy takes the literals for str
    return columns


def _end(scalar: Scalar, place: int) -> float | None:
    return None if scalar.interval is None else scalar.interval[place]
