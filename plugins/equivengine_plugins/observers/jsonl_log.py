"""Appends one JSON line to ``log.jsonl`` in the run directory for the start of a run, each unit, and its end."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import equivengine as eqv

EQUIVENGINE_API = (1, 0)

FILE = "log.jsonl"


@eqv.hookimpl
def equivengine_run_started(run_directory: str, unit_count: int, published: int) -> None:
    """Log the start."""
    _append(run_directory, event="run_started", units=unit_count, published=published)
    _current.append(run_directory)


@eqv.hookimpl
def equivengine_unit_finished(unit: eqv.Unit, outcome: eqv.UnitOutcome) -> None:
    """Log what became of a unit."""
    samples = [sample.id for sample in unit.samples]
    _append(_current[-1], event="unit_finished", probe=unit.probe, model=unit.model, samples=samples, **asdict(outcome))


@eqv.hookimpl
def equivengine_run_finished(run_directory: str, outcomes: dict[str, int]) -> None:
    """Log the end."""
    _append(run_directory, event="run_finished", outcomes=outcomes)
    _current.remove(run_directory)


#: Runs that are under way in this process; units finish in the innermost.
_current: list[str] = []


def _append(run_directory: str, **fields: object) -> None:
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields})
    # One write of one short line: appends of several processes do not interleave on a local file system.
    with open(Path(run_directory) / FILE, "a", encoding="utf-8") as log:
        log.write(line + "\n")
