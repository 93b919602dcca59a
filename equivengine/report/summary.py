"""Condenses the units of a run: for each probe and model one row per scalar, with its uncertainty over images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol, TypeVar

import numpy as np

from equivengine.contracts.result import Check, Scalar
from equivengine.contracts.unit import Unit, settings
from equivengine.statistics import bootstrap
from equivengine.store.png import find_folder
from equivengine.store.run import Run, UnitRecord

#: From this many observations on, a range that is not all of them can hold the median with 95% confidence:
#: smallest and largest of n miss it with probability 2 / 2^n, which is 12.5% for four of them.
ENOUGH = 6


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
            95% bootstrap interval of the median of more.
        n: Observations within the one unit, or number of units.
    """

    name: str
    description: str
    group: str
    value: float
    unit: str
    interval: tuple[float, float] | None
    n: int | None


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
        images: Ids of the samples, one line for each unit.
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
            row.name: Scalar(row.value, row.unit, row.description, row.interval, row.n, row.group) for row in self.rows
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
    counts = {record.unit_id: len(record.pictures) for record in run.units() if record.pictures}
    if not counts:
        return None
    folder = find_folder(run.path, counts)
    return PictureCount(sum(counts.values()), len(counts), None if folder is None else str(folder))


def summarise(run: Run) -> list[Section]:
    """One section for each probe, model and parameter set of a run, in the order of the plan.

    Raises:
        StoreError: If a shard cannot be read.
    """
    return [section for section, _ in grouped(run)]


def grouped(run: Run) -> list[tuple[Section, list[UnitRecord]]]:
    """As `summarise`, each section with the units that it condenses.

    Raises:
        StoreError: If a shard cannot be read.
    """
    groups: dict[tuple[str, str, str, str], list[UnitRecord]] = {}
    for record in run.units():
        unit = record.unit
        groups.setdefault((unit.probe, unit.model, unit.params, unit.precision), []).append(record)
    return [
        (_section(records, setting), records)
        for records, setting in zip(groups.values(), _settings(groups), strict=True)
    ]


def _settings(groups: Mapping[tuple[str, str, str, str], list[UnitRecord]]) -> list[str]:
    """For each group, what sets its parameters apart from those of the same probe on the same model."""
    alike: dict[tuple[str, str], list[Unit]] = {}
    for (probe, model, _, _), records in groups.items():
        alike.setdefault((probe, model), []).append(records[0].unit)
    words = {key: iter(settings(units)) for key, units in alike.items()}
    return [next(words[probe, model]) for probe, model, _, _ in groups]


def _section(records: list[UnitRecord], setting: str) -> Section:
    unit = records[0].unit
    names: dict[str, Scalar] = {}
    for record in records:
        for name, scalar in record.summary.items():
            names.setdefault(name, scalar)
    return Section(
        probe=unit.probe,
        model=unit.model,
        units=len(records),
        noun={1: "image", 2: "pair"}.get(len(unit.samples), "set"),
        interval="min .. max" if 1 < len(records) < ENOUGH else "95% interval",
        images=[" -> ".join(sample.id for sample in r.unit.samples) for r in records],
        rows=[_row(name, like, records) for name, like in names.items()],
        checks=_checks(records),
        warnings=_warnings(records),
        params=json.loads(unit.params),
        facts=_facts(records),
        setting=setting,
    )


def _row(name: str, like: Scalar, records: list[UnitRecord]) -> Row:
    found = [record.summary[name] for record in records if name in record.summary]
    if len(records) == 1:
        return Row(name, like.description, like.group, like.value, like.unit, like.interval, like.n)
    values = np.array([scalar.value for scalar in found])
    values = values[np.isfinite(values)]
    count = len(values)
    if count == 0:
        return Row(name, like.description, like.group, float("nan"), like.unit, None, 0)
    if len(records) < ENOUGH:
        ends = (float(values.min()), float(values.max())) if count > 1 else None
        return Row(name, like.description, like.group, float(np.median(values)), like.unit, ends, count)
    estimate = bootstrap(values)
    interval = estimate.interval if count >= ENOUGH else None  # most units could not measure it
    return Row(name, like.description, like.group, estimate.value, like.unit, interval, count)


def _checks(records: list[UnitRecord]) -> list[CheckRow]:
    found: dict[str, list[Check]] = {}
    for record in records:
        for name, check in record.checks.items():
            found.setdefault(name, []).append(check)
    return [_check(name, checks) for name, checks in found.items()]


def _check(name: str, checks: list[Check]) -> CheckRow:
    at_most = _is_at_most(checks)

    def badness(check: Check) -> float:
        if np.isnan(check.value):
            return float("inf")
        gap = check.value - check.bound if at_most else check.bound - check.value
        return gap / abs(check.bound) if check.bound else gap

    worst = max(checks, key=lambda check: (not check.passed, badness(check)))
    passed = sum(check.passed for check in checks)
    return CheckRow(name, worst.description, passed, len(checks), worst.value, worst.bound, at_most)


def _is_at_most(checks: list[Check]) -> bool:
    """Which way a check points: files store value, bound and verdict, and all but equality and NaN tell."""
    for check in checks:
        if check.value != check.bound and not np.isnan(check.value):
            return check.passed == (check.value < check.bound)
    return True


def _warnings(records: list[UnitRecord]) -> list[str]:
    warnings = []
    total = len(records)

    def share(count: int) -> str:
        return "" if count == total else f" ({count} of {total} units)"

    random = sum(bool(r.provenance.get("random_weights")) for r in records)
    if random:
        warnings.append(f"random weights: this says nothing about a trained model{share(random)}")
    slow = [r.provenance.get("extension", {}) for r in records]
    slow = [extension for extension in slow if not extension.get("available", True)]
    if slow:
        reason = next(iter(str(slow[0].get("reason", "")).splitlines()), "")
        warnings.append(f"reference path, no compiled kernels: {reason}{share(len(slow))}")
    for text in dict.fromkeys(r.message for r in records if r.status == "not_converged"):
        count = sum(r.message == text and r.status == "not_converged" for r in records)
        warnings.append(f"not converged: {text}{share(count)}")
    for text in dict.fromkeys(r.message for r in records if r.status == "ok" and r.message):
        warnings.append(f"note: {text}{share(sum(r.message == text for r in records))}")
    return warnings


def _facts(records: list[UnitRecord]) -> dict[str, str]:
    """In a few words; where units differ (a run that was resumed elsewhere), all that occurs."""
    every = [_facts_of(record) for record in records]
    return {name: "; ".join(dict.fromkeys(facts[name] for facts in every)) for name in every[0]}


def _facts_of(record: UnitRecord) -> dict[str, str]:
    provenance = record.provenance
    ran: dict[str, set[str]] = {}
    for operation, calls in provenance.get("operations", {}).items():
        for path in calls:
            ran.setdefault(path, set()).add(operation.removesuffix("_jvp").removesuffix("_vjp"))
    return {
        "device": str(provenance.get("device", {}).get("name", "unknown")),
        "precision": record.unit.precision,
        "seed": str(record.unit.seed),
        "attention": record.unit.attention,
        "kernels": ", ".join(f"{path} ({', '.join(sorted(ran[path]))})" for path in sorted(ran)) or "torch",
        "weights": f"sha256 {record.unit.weights_digest[:12]}",
    }
