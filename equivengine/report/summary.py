"""Condenses the units of a run: for each probe and model one row per scalar, with its uncertainty over images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from equivengine.contracts.result import Check, Scalar
from equivengine.contracts.unit import Unit, settings
from equivengine.contracts.wording import answer, between, counted, number
from equivengine.report.gathering import Failed, Gathering, Group, gather
from equivengine.report.tallies import CheckTally, Remarks, Texts
from equivengine.statistics import ENOUGH, median_of, wilson
from equivengine.store.png import find_folder
from equivengine.store.run import Run

#: Units that a section names, at most; different remarks of one kind, and values of one fact, that it writes out.
NAMED, REMARKS, FACTS = 1000, 8, 12

Kind = Literal["", "answer", "share"]


@dataclass(frozen=True)
class Row:
    """One scalar of a probe.

    Attributes:
        name: Its name.
        description: One line.
        group: Heading.
        value: The scalar of the one unit, or the median over units.
        unit: Unit.
        interval: The probe's own 95% interval for one unit; over units, smallest and largest of fewer than `ENOUGH`,
            95% bootstrap interval of the median of more. Of a share, Wilson's 95% interval of any number, as of that
            many images where these have several units.
        n: Observations within the one unit, or number of units.
        kind: "answer" where the one unit says yes (1) or no (0), "share" where the value is the share of yes over units
            in place of the median; otherwise empty.
    """

    name: str
    description: str
    group: str
    value: float
    unit: str
    interval: tuple[float, float] | None
    n: int | None
    kind: Kind = ""

    @property
    def shown(self) -> str:
        """The value as people read it."""
        return answer(self.value) if self.kind == "answer" else number(self.value)

    @property
    def shown_unit(self) -> str:
        """Its unit, or "share"; empty where it has none."""
        return "share" if self.kind == "share" else "" if self.unit == "1" else self.unit

    def shown_interval(self, heading: str) -> str:
        """The interval, and which one where ``heading``, what its column is called, says another: of a share."""
        if self.interval is None:
            return ""
        ends = between(self.interval)
        return f"{ends} (95%)" if self.kind == "share" and not heading.startswith("95%") else ends


@dataclass(frozen=True)
class CheckRow:
    """A consistency check over units: how many passed, and the value that came closest to its bound or passed it."""

    name: str
    description: str
    passed: int
    total: int
    worst: float
    bound: float
    at_most: bool


@dataclass(frozen=True)
class Section:
    """The results of one probe on one model.

    Attributes:
        probe: Name of the probe.
        model: Model URI.
        units: How many units.
        noun: What one of them is: "image", "pair" or "set".
        interval: What the intervals of the rows are: "95% interval" or "min .. max".
        images: Ids of the samples, one line for each unit; those of the first `NAMED`.
        rows: Scalars in the probe's order.
        checks: Consistency checks.
        warnings: What a reader must know first.
        params: The probe's parameters.
        setting: What sets them apart from the probe's other parameters on this model, as in "rate=0.01"; empty where
            there are no others.
        facts: Device, precision, seed, extension in a few words.
    """

    probe: str
    model: str
    units: int
    noun: str
    interval: str
    images: list[str]
    rows: list[Row]
    checks: list[CheckRow]
    warnings: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    setting: str = ""
    failed: int = 0
    not_converged: int = 0

    @property
    def name(self) -> str:
        """The probe, with what sets its parameters apart where it has several: ``"match, rate=0.01"``."""
        return f"{self.probe}, {self.setting}" if self.setting else self.probe

    @property
    def over_units(self) -> bool:
        """Whether values are medians over several units."""
        return self.units > 1

    def scalars(self) -> dict[str, Scalar]:
        """The rows by name, as a probe takes them to word its findings."""
        return {
            row.name: Scalar(
                row.value, row.unit, row.description, row.interval, row.n, row.group, binary=row.kind == "answer"
            )
            for row in self.rows
        }


class Grouped(Protocol):
    """What stands under a heading."""

    @property
    def group(self) -> str:
        """The heading."""


G = TypeVar("G", bound=Grouped)


def by_group(rows: Iterable[G]) -> list[tuple[str, list[G]]]:
    """Rows under their headings, in order."""
    return [(group, list(under)) for group, under in groupby(rows, key=lambda row: row.group)]


@dataclass(frozen=True)
class PictureCount:
    """The pictures of a run.

    Attributes:
        pictures: How many.
        units: How many units they are of.
        folder: Where their PNG files lie; None where there are none beside the opened file.
    """

    pictures: int
    units: int
    folder: str | None


def count_pictures(run: Run) -> PictureCount | None:
    """How many pictures a run holds and where their PNG files are; None if it holds none.

    Raises:
        StoreError: If a shard cannot be read.
    """
    return _picture_count(run, gather(run))


def summarise(run: Run) -> list[Section]:
    """One section for each probe, model and parameter set of a run, in the order of the plan.

    Raises:
        StoreError: If a shard cannot be read.
    """
    return [section for section, _ in sections_of(gather(run))]


def condense(run: Run) -> tuple[list[Section], PictureCount | None]:
    """What `summarise` and `count_pictures` say, of one pass over the run.

    Raises:
        StoreError: If a shard cannot be read.
    """
    found = gather(run)
    return [section for section, _ in sections_of(found)], _picture_count(run, found)


def sections_of(found: Gathering) -> list[tuple[Section, Group]]:
    """Each group of units as a section, with the group."""
    settings = _settings([group.unit for group in found.groups.values()])
    return [
        (_section(group, setting, found.failures.get(key)), group)
        for (key, group), setting in zip(found.groups.items(), settings, strict=True)
    ]


def _picture_count(run: Run, found: Gathering) -> PictureCount | None:
    counts = found.pictures
    if not counts:
        return None
    folder = find_folder(run.path, counts)
    return PictureCount(sum(counts.values()), len(counts), None if folder is None else str(folder))


def _settings(units: Sequence[Unit]) -> list[str]:
    """For each, what sets its parameters apart from those of the same probe on the same model."""
    alike: dict[tuple[str, str], list[Unit]] = {}
    for unit in units:
        alike.setdefault((unit.probe, unit.model), []).append(unit)
    words = {key: iter(settings(members)) for key, members in alike.items()}
    return [next(words[unit.probe, unit.model]) for unit in units]


def _section(group: Group, setting: str, failed: Failed | None) -> Section:
    unit = group.unit
    images = len(set(group.subjects)) if any(scalar.binary for scalar in group.scalars.values()) else group.count
    return Section(
        probe=unit.probe,
        model=unit.model,
        units=group.count,
        noun=noun_of(unit),
        interval="min .. max" if 1 < group.count < ENOUGH else "95% interval",
        images=group.names[:NAMED],
        rows=[_row(name, like, group, images) for name, like in group.scalars.items()],
        checks=[_check_row(name, tally) for name, tally in group.checks.items()],
        warnings=_warnings(group),
        params=json.loads(unit.params),
        facts={name: _joined(texts) for name, texts in group.facts.items()},
        setting=setting,
        failed=failed.texts.total() if failed is not None else 0,
        not_converged=group.unconverged.total(),
    )


def noun_of(unit: Unit) -> str:
    """What a unit is: "image", "pair" or "set"."""
    return {1: "image", 2: "pair"}.get(len(unit.samples), "set")


def _row(name: str, like: Scalar, group: Group, images: int) -> Row:
    """A scalar over the units of a group, which are about so many images: units of one image are no independent yes."""
    binary = group.binary(name)
    if group.count == 1:
        kind: Kind = "answer" if binary else ""
        return Row(name, like.description, like.group, like.value, like.unit, like.interval, like.n, kind)
    middle = middle_of(group.values(name), group.count, binary=binary, worth=images)
    kind = "share" if binary else ""
    return Row(name, like.description, like.group, middle.value, like.unit, middle.ends, middle.n, kind)


@dataclass(frozen=True)
class Middle:
    """A median or a share with what it lies in; ``ends`` is None where too few observations say nothing."""

    value: float
    ends: tuple[float, float] | None
    n: int


def middle_of(values: np.ndarray, asked: int, *, binary: bool = False, worth: int | None = None) -> Middle:
    """The median of what could be measured; of yes and no the share of yes, with Wilson's interval.

    Args:
        values: [n]; what is not finite does not count.
        asked: How many there would be, had all been measured: fewer than `ENOUGH` give smallest and largest as ends,
            more the 95% interval.
        binary: Whether the values are 1 and 0, yes and no, or shares of yes among the units of one image.
        worth: How many independent ones yes and no are worth, at most; None: as many as there are.
    """
    values = values[np.isfinite(values)]
    count = len(values)
    if count == 0:
        return Middle(float("nan"), None, 0)
    if binary:
        share, effective = float(values.sum()) / count, count if worth is None else min(count, worth)
        return Middle(share, wilson(share * effective, effective), count)
    if asked < ENOUGH:
        ends = (float(values.min()), float(values.max())) if count > 1 else None
        return Middle(float(np.median(values)), ends, count)
    estimate = median_of(values)
    # Where most could not be measured, the rest is too few for an interval.
    return Middle(estimate.value, estimate.interval if count >= ENOUGH else None, count)


def _check(name: str, checks: Iterable[Check]) -> CheckRow:
    tally = CheckTally()
    for check in checks:
        tally.add(check)
    return _check_row(name, tally)


def _check_row(name: str, tally: CheckTally) -> CheckRow:
    return CheckRow(name, tally.description, tally.passed, tally.total, tally.worst, tally.bound, tally.at_most)


def _warnings(group: Group) -> list[str]:
    warnings = []
    total = group.count

    def share(count: int) -> str:
        return "" if count == total else f" ({count:,} of {total:,} units)"

    def told(kind: str, remarks: Remarks) -> None:
        shown = remarks.kinds()[:REMARKS]
        for text, count, differ in shown:
            of = f" ({count:,} of {total:,} units, with other numbers)" if differ else share(count)
            warnings.append(f"{kind}: {text}{of}")
        if left := remarks.total() - sum(count for _, count, _ in shown):
            warnings.append(f"{kind}: other remarks on {counted(left, 'unit')}; `equivengine export` lists them")

    if group.random:
        warnings.append(f"random weights: this says nothing about a trained model{share(group.random)}")
    for words, count in group.narrowed.counts.items():
        warnings.append(f"{words}; what rests on it goes no further than that{share(count)}")
    if group.unavailable.total():
        reason = next(iter(group.unavailable))
        count = group.unavailable.total()
        warnings.append(f"reference path, no compiled kernels: {reason}{share(count)}")
    told("not converged", group.unconverged)
    told("note", group.notes)
    return warnings


def _joined(texts: Texts) -> str:
    """In a few words; where units differ (a run that was resumed elsewhere), what occurs."""
    words = list(texts)[:FACTS]
    left = len(texts.counts) + bool(texts.others) - len(words)
    return "; ".join(words) + (f"; and {left} more" if left else "")
