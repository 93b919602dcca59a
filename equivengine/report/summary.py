"""Condenses the units of a run: for each probe and model one row per scalar, with its uncertainty over images."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from equivengine.contracts.result import Scalar
from equivengine.statistics import bootstrap
from equivengine.store.run import Run, UnitRecord


@dataclass(frozen=True)
class Row:
    """One scalar of a probe.

    Attributes:
        name: Its name.
        description: One line.
        group: Heading.
        value: The scalar of the one unit, or the median over units.
        unit: Unit.
        interval: 95% interval: the probe's own for one unit, bootstrap over units otherwise.
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
    """A consistency check over units: how many passed, and the worst value."""

    name: str
    description: str
    passed: int
    total: int
    worst: float
    bound: float


@dataclass(frozen=True)
class Section:
    """The results of one probe on one model.

    Attributes:
        probe: Name of the probe.
        model: Model URI.
        units: How many units.
        images: Ids of the samples, one line for each unit.
        rows: Scalars in the probe's order.
        checks: Consistency checks.
        warnings: What a reader must know first.
        params: The probe's parameters.
        facts: Device, precision, seed, extension in a few words.
    """

    probe: str
    model: str
    units: int
    images: list[str]
    rows: list[Row]
    checks: list[CheckRow]
    warnings: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def over_units(self) -> bool:
        """Whether values are medians over several units."""
        return self.units > 1


def summarise(run: Run) -> list[Section]:
    """One section for each probe, model and parameter set of a run, in the order of the plan.

    Raises:
        StoreError: If a shard cannot be read.
    """
    groups: dict[tuple[str, str, str, str], list[UnitRecord]] = {}
    for record in run.units():
        unit = record.unit
        groups.setdefault((unit.probe, unit.model, unit.params, unit.precision), []).append(record)
    return [_section(records) for records in groups.values()]


def _section(records: list[UnitRecord]) -> Section:
    unit = records[0].unit
    names: dict[str, Scalar] = {}
    for record in records:
        for name, scalar in record.summary.items():
            names.setdefault(name, scalar)
    return Section(
        probe=unit.probe,
        model=unit.model,
        units=len(records),
        images=[" -> ".join(sample.id for sample in r.unit.samples) for r in records],
        rows=[_row(name, like, records) for name, like in names.items()],
        checks=_checks(records),
        warnings=_warnings(records),
        params=json.loads(unit.params),
        facts=_facts(records[0]),
    )


def _row(name: str, like: Scalar, records: list[UnitRecord]) -> Row:
    found = [record.summary[name] for record in records if name in record.summary]
    if len(records) == 1:
        return Row(name, like.description, like.group, like.value, like.unit, like.interval, like.n)
    values = np.array([scalar.value for scalar in found])
    values = values[np.isfinite(values)]
    estimate = bootstrap(values)
    return Row(name, like.description, like.group, estimate.value, like.unit, estimate.interval, estimate.n)


def _checks(records: list[UnitRecord]) -> list[CheckRow]:
    rows: dict[str, CheckRow] = {}
    for record in records:
        for name, check in record.checks.items():
            row = rows.get(name, CheckRow(name, check.description, 0, 0, check.value, check.bound))
            at_most = check.passed == (check.value <= check.bound)
            extreme = max if at_most else min
            rows[name] = CheckRow(
                name,
                check.description,
                row.passed + check.passed,
                row.total + 1,
                extreme(row.worst, check.value),
                check.bound,
            )
    return list(rows.values())


def _warnings(records: list[UnitRecord]) -> list[str]:
    warnings = []
    total = len(records)

    def share(count: int) -> str:
        return "" if count == total else f" ({count} of {total} units)"

    random = sum(bool(r.provenance.get("random_weights")) for r in records)
    if random:
        warnings.append(f"random weights: this says nothing about a trained model{share(random)}")
    slow = sum(not r.provenance.get("extension", {}).get("loaded", True) for r in records)
    if slow:
        reason = next(
            r.provenance["extension"].get("reason") for r in records if not r.provenance["extension"].get("loaded")
        )
        warnings.append(f"reference path, no compiled kernels: {reason}{share(slow)}")
    for text in dict.fromkeys(r.message for r in records if r.status == "not_converged"):
        count = sum(r.message == text and r.status == "not_converged" for r in records)
        warnings.append(f"not converged: {text}{share(count)}")
    for text in dict.fromkeys(r.message for r in records if r.status == "ok" and r.message):
        warnings.append(f"note: {text}{share(sum(r.message == text for r in records))}")
    return warnings


def _facts(record: UnitRecord) -> dict[str, str]:
    provenance = record.provenance
    extension = provenance.get("extension", {})
    paths = sorted({path for calls in provenance.get("operations", {}).values() for path in calls})
    return {
        "device": str(provenance.get("device", {}).get("name", "unknown")),
        "precision": record.unit.precision,
        "seed": str(record.unit.seed),
        "attention": record.unit.attention,
        "kernels": ", ".join(paths) if extension.get("loaded") else "reference (no extension)",
        "weights": f"sha256 {record.unit.weights_digest[:12]}",
    }
