"""The runs of a folder, a line for each: what was planned, what is done, and when it began."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equivengine.errors import StoreError
from equivengine.store.folder import runs_in
from equivengine.store.run import Run, open_run


@dataclass(frozen=True)
class Overview:
    """One run of a folder.

    Attributes:
        path: Its directory.
        title: What its run file calls it.
        planned: Units of its plan that are needed, published ones included.
        done: Published units.
        failed: Units that failed, and have no result.
        probes: Names of its probes, in the order of the plan.
        models: Its models, in that order.
        started: When its first unit in that order was started, UTC; empty where none was.
        error: Why it cannot be read; then nothing else is known.
    """

    path: Path
    title: str = ""
    planned: int = 0
    done: int = 0
    failed: int = 0
    probes: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    started: str = ""
    error: str = ""


def overview(folder: Path) -> list[Overview]:
    """The runs that lie in a folder, sorted by name; of damaged ones what is wrong.

    Raises:
        StoreError: If the folder cannot be read.
    """
    return [_read(path) for path in runs_in(folder)]


def _read(path: Path) -> Overview:
    try:
        with open_run(path) as run:
            return _of(path, run)
    except StoreError as error:
        return Overview(path, error=error.what)


def _of(path: Path, run: Run) -> Overview:
    config = run.plan.get("config", {})
    title = config.get("title") if isinstance(config, dict) else None
    first = next(run.each(), None)
    told = [*(failure.provenance for failure in itertools.islice(run.failures.values(), 1))]
    told[:0] = [first.provenance] if first is not None else []
    done, failed = len(run.published), len(run.failures)
    named = list(_named(run))
    return Overview(
        path,
        title=title if isinstance(title, str) else "",
        planned=done + failed + len(run.missing),
        done=done,
        failed=failed,
        probes=list(dict.fromkeys(probe for probe, _ in named)),
        models=list(dict.fromkeys(model for _, model in named)),
        started=str(next(iter(told), {}).get("started", "")),
    )


def _named(run: Run) -> Iterator[tuple[str, str]]:
    """Probe and model of the units of the plan; of published units where the plan lists ids alone."""
    listed: list[Any] = [*run.plan.get("groups", []), *run.plan.get("units", [])]
    if all(isinstance(entry, Mapping) for entry in listed):
        yield from ((str(entry.get("probe")), str(entry.get("model"))) for entry in listed)
    else:
        yield from ((record.unit.probe, record.unit.model) for record in run.each())
