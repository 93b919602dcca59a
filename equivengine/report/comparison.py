"""Models side by side: the scalars of several runs, probe by probe, and whether they may be compared at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from equivengine.errors import UsageError
from equivengine.report.cautions import cautions
from equivengine.report.classes import ClassLine, class_lines, labelled
from equivengine.report.gathering import Group, gather
from equivengine.report.paired import Difference, Subjects, difference
from equivengine.report.summary import Row, Section, middle_of, sections_of
from equivengine.report.twice import once
from equivengine.statistics import ENOUGH
from equivengine.store.run import Run

#: Values that span less than this ratio stand on a linear axis.
DECADE = 10.0
#: For a column: the names of the scalars that matter most, with a short title each.
Headlines = Callable[[Section, Group], dict[str, str]]


@dataclass(frozen=True)
class Column:
    """The units of one model under one set of parameters.

    Attributes:
        label: What tells it from the other columns.
        section: Its numbers, over units.
        group: Its units.
        subjects: Which image each is about.
    """

    label: str
    section: Section
    group: Group
    subjects: Subjects

    @property
    def images(self) -> int:
        """How many different images, or sets of images, its units are about."""
        return len(self.subjects.images)

    @property
    def interval(self) -> str:
        """What its intervals are, but for shares: "95% interval" or "min .. max"."""
        return "min .. max" if 1 < self.images < ENOUGH else "95% interval"

    def row(self, row: Row) -> Row:
        """A scalar over images: the median of an image's units, or their share of yes, counts once."""
        if not self.subjects.repeated:
            return row
        found = middle_of(self.of_images(row.name), self.images, binary=row.kind == "share")
        return replace(row, value=found.value, interval=found.ends, n=found.n)

    def of_images(self, name: str) -> np.ndarray:
        """A scalar, or where it is yes or no the share of yes, float64 [images]; NaN where it could not be measured."""
        values = self.group.values(name)
        return self.subjects.shares(values) if self.group.binary(name) else self.subjects.medians(values)


@dataclass(frozen=True)
class Cell:
    """A number of one column, and where it lies on the axis of its line, 0 to 1; None where it is not finite.

    Attributes:
        row: The number.
        at: Its place.
        low: Place of the lower end of its interval.
        high: Place of the upper end.
        difference: Against the first column, on the images of both; None in the first column itself.
    """

    row: Row
    at: float | None
    low: float | None
    high: float | None
    difference: Difference | None = None


@dataclass(frozen=True)
class Line:
    """One scalar over the columns; a cell is None where the column lacks it.

    Attributes:
        name: Its name.
        description: One line.
        group: Heading.
        unit: Unit; where columns have several (inputs of several kinds), all of them, and each cell shows its own.
        cells: One for each column.
        logarithmic: Whether the axis is.
        mixed: Whether columns have several units, or only some of them shares. Their values lie on no common axis, and
            have no differences.
        share: Whether its values are shares of yes, or answers.
    """

    name: str
    description: str
    group: str
    unit: str
    cells: Sequence[Cell | None]
    logarithmic: bool
    mixed: bool = False
    share: bool = False

    @property
    def shown_unit(self) -> str:
        """What stands in the column of units; empty where there is none, or each cell has its own."""
        return "share" if self.share else "" if self.mixed or self.unit == "1" else self.unit


@dataclass(frozen=True)
class Comparison:
    """One probe on several models.

    Attributes:
        probe: Its name.
        columns: Models, in the order of the runs.
        lines: Scalars, in the probe's order.
        cautions: What stands between these columns and a fair comparison.
        classes: Scalars for each class of images, where they were asked for.
    """

    probe: str
    columns: Sequence[Column]
    lines: Sequence[Line]
    cautions: Sequence[str] = field(default=())
    classes: Sequence[ClassLine] = field(default=())


def compare(
    runs: Sequence[Run], *, drawn: bool = False, per_class: bool = False, headlines: Headlines | None = None
) -> list[Comparison]:
    """Compare what several runs hold, or several models of one run.

    Units that two runs hold with the same numbers are one column, and those with other numbers two; both is said.

    Args:
        runs: At least one. Differences are against the first column.
        drawn: Whether to keep units for figures.
        per_class: Also for each class of the images, as far as units say which they are.
        headlines: Which scalars to take then; the first ones where it names none.

    Returns:
        One comparison for each probe that has at least two columns, in the order of the first run that has it.

    Raises:
        UsageError: If there is nothing to compare, or no class is known.
        StoreError: If a shard cannot be read.
    """
    found: dict[str, list[tuple[Run, Section, Group]]] = {}
    classes: dict[str, str | None] = {}
    for run in runs:
        gathered = gather(run, drawn=drawn)
        for digest, name in gathered.labels.items():
            classes[digest] = name if classes.get(digest, name) == name else None
        for section, group in sections_of(gathered):
            found.setdefault(section.probe, []).append((run, section, group))
    distinct = {probe: once(parts) for probe, parts in found.items()}
    several = {probe: (parts, said) for probe, (parts, said) in distinct.items() if len(parts) > 1}
    if not several:
        repeated = [sentence for _, said in distinct.values() for sentence in said]
        raise UsageError(
            "there is nothing to compare",
            expected="a probe that ran on two models, or with two sets of parameters",
            got="; ".join(repeated)
            or ", ".join(f"{probe} on {parts[0][1].model}" for probe, parts in found.items())
            or "no results",
            hint="run the same probe on another model, and pass both runs",
        )
    numbering: dict[str, int] = {}
    comparisons = [_comparison(probe, parts, said, numbering) for probe, (parts, said) in several.items()]
    if per_class:
        members = labelled(classes, numbering)
        comparisons = [
            replace(each, classes=class_lines(each.columns, each.lines, members, headlines)) for each in comparisons
        ]
    return comparisons


def _comparison(
    probe: str, parts: Sequence[tuple[Run, Section, Group]], said: Sequence[str], numbering: dict[str, int]
) -> Comparison:
    columns = [
        Column(label, section, group, Subjects(numbering, group.subjects))
        for label, (_, section, group) in zip(_labels(parts), parts, strict=True)
    ]
    rows = [{row.name: column.row(row) for row in column.section.rows} for column in columns]
    lines = [
        _line([each.get(name) for each in rows], columns)
        for name in dict.fromkeys(name for each in rows for name in each)
    ]
    units = {row.unit for each in rows for row in each.values()}
    return Comparison(probe, columns, lines, [*said, *cautions(columns, units, [run for run, _, _ in parts])])


def _labels(parts: Sequence[tuple[Run, Section, Group]]) -> list[str]:
    """Model, and what else it takes to tell the columns apart: settings, precision, run."""
    ways: Sequence[Callable[[Run, Section], str]] = (
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


def _line(rows: Sequence[Row | None], columns: Sequence[Column]) -> Line:
    there = [row for row in rows if row is not None]
    like = there[0]
    mixed = len({(row.unit, bool(row.kind)) for row in there}) > 1
    share = all(row.kind for row in there)
    values = [end for row in there for end in (row.value, *(row.interval or ())) if math.isfinite(end)]
    low, high = (min(values), max(values)) if values else (math.nan, math.nan)
    logarithmic = low > 0 and high >= DECADE * low

    def place(value: float) -> float | None:
        if mixed or not math.isfinite(value):
            return None
        if high == low:
            return 0.5
        if logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    first = columns[0]
    others = first.of_images(like.name) if rows[0] is not None and not mixed else None

    def cell(row: Row, column: Column) -> Cell:
        ends = (None, None) if row.interval is None else tuple(place(end) for end in row.interval)
        against = None
        if others is not None and column is not first:
            values = column.of_images(like.name)
            against = difference(column.subjects, values, first.subjects, others, binary=share)
        return Cell(row, place(row.value), ends[0], ends[1], against)

    cells = [None if row is None else cell(row, column) for row, column in zip(rows, columns, strict=True)]
    return Line(
        like.name,
        _words([row.description for row in there], mixed),
        _words([row.group for row in there], mixed),
        _words([row.unit for row in there], mixed),
        cells,
        logarithmic,
        mixed,
        share,
    )


def _words(texts: Sequence[str], mixed: bool) -> str:
    """What columns call one scalar: the first, or where inputs are of several kinds, each different one."""
    return "; ".join(dict.fromkeys(texts)) if mixed else texts[0]
