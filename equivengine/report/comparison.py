"""Models side by side: the scalars of several runs, probe by probe, and whether they may be compared at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from equivengine.errors import UsageError
from equivengine.report.summary import Row, Section, grouped
from equivengine.store.run import Run, UnitRecord

#: Values that span less than this ratio stand on a linear axis.
DECADE = 10.0


@dataclass(frozen=True)
class Column:
    """The units of one model under one set of parameters.

    Attributes:
        label: What tells it from the other columns.
        section: Its numbers.
        records: Its units.
    """

    label: str
    section: Section
    records: Sequence[UnitRecord]


@dataclass(frozen=True)
class Cell:
    """A number of one column, and where it lies on the axis of its line, 0 to 1; None where it is not finite."""

    row: Row
    at: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """One scalar over the columns; a cell is None where the column lacks it.

    Attributes:
        name: Its name.
        description: One line.
        group: Heading.
        unit: Unit.
        cells: One for each column.
        logarithmic: Whether the axis is.
    """

    name: str
    description: str
    group: str
    unit: str
    cells: Sequence[Cell | None]
    logarithmic: bool


@dataclass(frozen=True)
class Comparison:
    """One probe on several models.

    Attributes:
        probe: Its name.
        columns: Models, in the order of the runs.
        lines: Scalars, in the probe's order.
        cautions: What stands between these columns and a fair comparison.
    """

    probe: str
    columns: Sequence[Column]
    lines: Sequence[Line]
    cautions: Sequence[str] = field(default=())


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """Compare what several runs hold, or several models of one run.

    Args:
        runs: At least one.

    Returns:
        One comparison for each probe that has at least two columns, in the order of the first run that has it.

    Raises:
        UsageError: If there is nothing to compare.
        StoreError: If a shard cannot be read.
    """
    found: dict[str, list[tuple[Run, Section, list[UnitRecord]]]] = {}
    for run in runs:
        for section, records in grouped(run):
            found.setdefault(section.probe, []).append((run, section, records))
    comparisons = [_comparison(probe, parts) for probe, parts in found.items() if len(parts) > 1]
    if not comparisons:
        raise UsageError(
            "there is nothing to compare",
            expected="a probe that ran on two models, or with two sets of parameters",
            got=", ".join(f"{probe} on {parts[0][1].model}" for probe, parts in found.items()) or "no results",
            hint="run the same probe on another model, and pass both runs",
        )
    return comparisons


def _comparison(probe: str, parts: Sequence[tuple[Run, Section, list[UnitRecord]]]) -> Comparison:
    columns = [
        Column(label, section, records) for label, (_, section, records) in zip(_labels(parts), parts, strict=True)
    ]
    names = dict.fromkeys(row.name for column in columns for row in column.section.rows)
    rows = [{row.name: row for row in column.section.rows} for column in columns]
    lines = [_line([each.get(name) for each in rows]) for name in names]
    return Comparison(probe, columns, lines, _cautions(columns))


def _labels(parts: Sequence[tuple[Run, Section, list[UnitRecord]]]) -> list[str]:
    """Model, and what else it takes to tell the columns apart: settings, precision, run."""
    ways = (
        lambda run, section: section.model,
        lambda run, section: f"{section.model}, {section.setting}" if section.setting else section.model,
        lambda run, section: f"{section.model}, {section.facts['precision']}",
        lambda run, section: f"{section.model}, {run.path.name if run.path.is_dir() else run.path.parent.name}",
        lambda run, section: f"{section.model}, {section.setting or section.facts['precision']}, {run.path}",
    )
    for way in ways:
        labels = [way(run, section) for run, section, _ in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{label} ({number})" for number, label in enumerate(labels, 1)]


def _line(rows: Sequence[Row | None]) -> Line:
    like = next(row for row in rows if row is not None)
    values = [
        end for row in rows if row is not None for end in (row.value, *(row.interval or ())) if math.isfinite(end)
    ]
    low, high = (min(values), max(values)) if values else (math.nan, math.nan)
    logarithmic = low > 0 and high >= DECADE * low

    def place(value: float) -> float | None:
        if not math.isfinite(value):
            return None
        if high == low:
            return 0.5
        if logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    def cell(row: Row) -> Cell:
        ends = (None, None) if row.interval is None else tuple(place(end) for end in row.interval)
        return Cell(row, place(row.value), ends[0], ends[1])

    cells = [None if row is None else cell(row) for row in rows]
    return Line(like.name, like.description, like.group, like.unit, cells, logarithmic)


def _cautions(columns: Sequence[Column]) -> list[str]:
    """Differences that are not between the models."""
    cautions = []
    sections = [column.section for column in columns]
    sets = [{sample.digest for record in c.records for sample in record.unit.samples} for c in columns]
    shared, every = set.intersection(*sets), set.union(*sets)
    if shared != every:
        cautions.append(f"not on the same images: {len(shared)} of {len(every)} are common to all columns")
    params = [section.params for section in sections]
    for name in dict.fromkeys(name for each in params for name in each):
        values = [each.get(name) for each in params]
        if any(value != values[0] for value in values):
            told = "; ".join(f"{c.label}: {value}" for c, value in zip(columns, values, strict=True))
            cautions.append(f"the parameter {name} differs ({told})")
    for what, words in (
        ("versions of the probe", [column.records[0].unit.probe_version for column in columns]),
        ("precisions", [section.facts["precision"] for section in sections]),
        ("seeds", [section.facts["seed"] for section in sections]),
    ):
        if len(set(words)) > 1:
            cautions.append(f"{what} differ: {', '.join(dict.fromkeys(words))}")
    for warning in dict.fromkeys(warning for section in sections for warning in section.warnings):
        whose = [column.label for column in columns if warning in column.section.warnings]
        cautions.append(f"{'all' if len(whose) == len(columns) else ', '.join(whose)}: {warning}")
    return cautions
