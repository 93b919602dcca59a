"""Progress on stderr, from the parent process only. That nobody reads it does not stop a run."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Protocol

import click

from equivengine.cli.text import printable
from equivengine.contracts.unit import Unit, UnitOutcome


class Progress(Protocol):
    """Gets told what happens; a context manager around the run."""

    def start(self, path: Path, units: int, done: int) -> None:
        """Before the first unit."""

    def unit_done(self, unit: Unit, outcome: UnitOutcome) -> None:
        """After each unit."""

    def __enter__(self) -> Progress:
        """Open it."""

    def __exit__(self, *exc: object) -> None:
        """Close it."""


def make_progress(kind: str) -> Progress:
    """``auto``: a bar on a terminal, lines elsewhere; ``plain``, ``json`` or ``none``."""
    if kind == "auto":
        kind = "rich" if sys.stderr.isatty() else "plain"
    return {"rich": Bar, "plain": Lines, "json": JsonLines, "none": Silent}[kind]()


class Silent:
    """Says nothing."""

    def start(self, path: Path, units: int, done: int) -> None:
        """Nothing."""

    def unit_done(self, unit: Unit, outcome: UnitOutcome) -> None:
        """Nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Lines(Silent):
    """One line for each unit, with the time that the rest may take."""

    _listening = True

    def _say(self, line: str) -> None:
        if self._listening:
            try:
                click.echo(line, err=True)
            except BrokenPipeError:  # `2>&1 | head`: whoever stopped reading did not ask for the work to stop
                self._listening = False

    def start(self, path: Path, units: int, done: int) -> None:
        """Say where results go and what is there already."""
        self._todo, self._count, self._begun = units - done, 0, time.monotonic()
        there = f", {done} of them published already" if done else ""
        self._say(f"{units} unit{'s' * (units != 1)}{there}; results go to {printable(str(path))}")

    def unit_done(self, unit: Unit, outcome: UnitOutcome) -> None:
        """One line."""
        self._count += 1
        each = (time.monotonic() - self._begun) / self._count
        left = each * (self._todo - self._count)
        rest = f", about {left:.0f} s left" if left >= 1 else ""
        head, *more = _describe(unit, outcome).splitlines()
        self._say("\n".join([f"[{self._count}/{self._todo}] {head} ({outcome.seconds:.1f} s{rest})", *more]))


class JsonLines(Lines):
    """One JSON object for each event."""

    def start(self, path: Path, units: int, done: int) -> None:
        """The start."""
        self._write(event="run_started", directory=str(path), units=units, published=done)

    def unit_done(self, unit: Unit, outcome: UnitOutcome) -> None:
        """One unit."""
        self._write(
            event="unit_finished",
            unit_id=outcome.unit_id,
            probe=unit.probe,
            model=unit.model,
            samples=[sample.id for sample in unit.samples],
            outcome=outcome.outcome,
            seconds=outcome.seconds,
            message=outcome.message,
        )

    def _write(self, **fields: object) -> None:
        self._say(json.dumps(fields))


class Bar(Silent):
    """A bar with rate, remaining time and failures."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[last]}", markup=False),  # names of files may hold brackets
            console=Console(stderr=True),
            transient=True,
        )
        self._failed = 0

    def start(self, path: Path, units: int, done: int) -> None:
        """Show the bar."""
        self._progress.console.print(f"results go to {printable(str(path))}", highlight=False, markup=False)
        self._task = self._progress.add_task("measuring", total=units, completed=done, last="")

    def unit_done(self, unit: Unit, outcome: UnitOutcome) -> None:
        """Advance it; failures stay on the screen."""
        if outcome.outcome == "failed":
            self._failed += 1
            self._progress.console.print(_describe(unit, outcome), highlight=False, markup=False)
        last = f"{self._failed} failed" if self._failed else unit.samples[0].id
        self._progress.update(self._task, advance=1, last=printable(last)[:40])

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()


def _describe(unit: Unit, outcome: UnitOutcome) -> str:
    samples = " -> ".join(sample.id for sample in unit.samples[:2])
    text = f"{unit.probe} {samples}: {outcome.outcome}"
    if outcome.status not in ("", "ok"):
        text += f", {outcome.status}"
    if outcome.outcome == "failed":
        text += "\n    " + outcome.message.replace("\n", "\n    ")
    return printable(text)
