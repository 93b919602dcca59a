"""Progress on stderr, from the parent process only. That nobody reads it does not stop a run."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from equivengine.cli import signals
from equivengine.cli.pace import Pace, clock_time
from equivengine.cli.text import in_line, printable
from equivengine.contracts.unit import Batch, Unit, UnitOutcome
from equivengine.contracts.wording import counted

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


#: A unit that takes longer is said to; seconds.
SLOW = 5.0


class Progress(Protocol):
    """Gets told what happens; a context manager around the run."""

    def start(self, path: Path, units: int, done: int, batches: Sequence[Batch] = ()) -> None:
        """Before the first unit: how many there are and are done, and those that are not, as they are computed."""

    def batch_begun(self, batch: Batch) -> None:
        """Before each batch that runs in this process."""

    def unit_done(self, unit: Unit, outcome: UnitOutcome) -> None:
        """After each unit."""

    def remark(self, text: str) -> None:
        """What is good to know, before the start."""

    def caution(self, text: str) -> None:
        """What may go wrong, as soon as it is known: also where nothing else is said."""

    def __enter__(self) -> Progress:
        """Open it."""

    def __exit__(self, *exc: object) -> None:
        """Close it."""


def make_progress(kind: str) -> Progress:
    """``auto``: a bar on a terminal, lines elsewhere; ``plain``, ``json`` or ``none``."""
    if kind == "auto":
        kind = "rich" if sys.stderr.isatty() else "plain"
    return {"rich": Bar, "plain": Lines, "json": JsonLines, "none": Silent}[kind]()


class _AtWork:
    """A batch that runs in this process, and since when."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self._begun

    @property
    def words(self) -> str:
        """Its first unit, and how many more there are."""
        more = f" and {len(self.batch) - 1} computed together with it" if len(self.batch) > 1 else ""
        return printable(f"{_named(self.batch[0])}{more}")


class Silent:
    """Says nothing."""

    def start(self, path: Path, units: int, done: int, batches: Sequence[Batch] = ()) -> None:
        """Nothing."""

    def batch_begun(self, batch: Batch) -> None:
        """Nothing."""

    def unit_done(self, unit: Unit, outcome: UnitOutcome) -> None:
        """Nothing."""

    def remark(self, text: str) -> None:
        """Nothing."""

    def caution(self, text: str) -> None:
        """A line."""
        _echo(f"warning: {printable(text)}")

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Lines(Silent):
    """One line for each unit, with rate, the time that the rest may take, and failures so far.

    Args:
        patience: After so many seconds without one, a line says that it goes on: some units take an hour, and units
            that are computed together finish together.
    """

    def __init__(self, patience: float = 60.0) -> None:
        self._patience = patience
        self._listening = True
        self._at: _AtWork | None = None
        self._over = threading.Event()
        self._watcher: threading.Thread | None = None

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        if self._watcher is not None:
            self._watcher.join()

    def _begin(self, pace: Pace) -> None:
        self._pace = pace
        self._watcher = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        while not self._over.wait(self._patience):
            if self._pace.silent >= self._patience and self._pace.finished < self._pace.todo:
                self._still()

    def batch_begun(self, batch: Batch) -> None:
        """Nothing yet; a line if it takes long."""
        self._at = _AtWork(batch)

    def _still(self) -> None:
        pace, at = self._pace, self._at
        left = "" if pace.seconds_left is None else f"; {clock_time(pace.seconds_left)} left"
        if at is None:
            said = f"at work, {clock_time(pace.silent)} since the last unit"
        else:
            said = f"{at.words}: running for {clock_time(at.seconds)}"
        self._say(f"[{pace.finished}/{pace.todo}] {said}{left}")

    def _say(self, line: str) -> None:
        if self._listening:
            try:
                click.echo(line, err=True)
            except BrokenPipeError:  # `2>&1 | head`: whoever stopped reading did not ask for the work to stop
                self._listening = False

    def remark(self, text: str) -> None:
        """A line."""
        self._say(f"note: {printable(text)}")

    def start(self, path: Path, units: int, done: int, batches: Sequence[Batch] = ()) -> None:
        """Say where results go, what is there already, and how many units are computed together."""
        there = f", {done:,} of them published already" if done else ""
        largest = max(map(len, batches), default=1)
        together = f", up to {largest} computed together" if largest > 1 else ""
        self._say(f"{counted(units, 'unit')}{there}{together}; results go to {printable(str(path))}")
        self._begin(Pace(units - done, batches))

    def unit_done(self, unit: Unit, outcome: UnitOutcome) -> None:
        """One line."""
        pace = self._pace
        pace.unit_done(unit, outcome)
        failed = f"{pace.failed} failed" if pace.failed else ""
        words = pace.words() if pace.finished < pace.todo else ""
        aside = "; ".join(filter(None, (f"{outcome.seconds:.1f} s", words, failed)))
        head, *more = _describe(unit, outcome).splitlines()
        self._say("\n".join([f"[{pace.finished}/{pace.todo}] {head} ({aside})", *more]))


class JsonLines(Lines):
    """One JSON object for each event."""

    def start(self, path: Path, units: int, done: int, batches: Sequence[Batch] = ()) -> None:
        """The start."""
        self._write(event="run_started", directory=str(path), units=units, published=done)
        self._begin(Pace(units - done, batches))

    def unit_done(self, unit: Unit, outcome: UnitOutcome) -> None:
        """One unit."""
        pace = self._pace
        pace.unit_done(unit, outcome)
        self._write(
            event="unit_finished",
            unit_id=outcome.unit_id,
            probe=unit.probe,
            model=unit.model,
            samples=[sample.id for sample in unit.samples],
            outcome=outcome.outcome,
            seconds=outcome.seconds,
            message=outcome.message,
            finished=pace.finished,
            todo=pace.todo,
            failed=pace.failed,
            elapsed_seconds=_rounded(pace.elapsed),
            seconds_per_unit=_rounded(pace.seconds_per_unit),
            seconds_left=_rounded(pace.seconds_left),
        )

    def remark(self, text: str) -> None:
        """The remark."""
        self._write(event="remark", message=text)

    def caution(self, text: str) -> None:
        """The warning."""
        self._write(event="caution", message=text)

    def _still(self) -> None:
        pace, at = self._pace, self._at
        self._write(
            event="at_work",
            silent_seconds=_rounded(pace.silent),
            finished=pace.finished,
            todo=pace.todo,
            failed=pace.failed,
            elapsed_seconds=_rounded(pace.elapsed),
            seconds_left=_rounded(pace.seconds_left),
            unit_ids=[] if at is None else [unit.unit_id for unit in at.batch],
            running_seconds=None if at is None else _rounded(at.seconds),
        )

    def _write(self, **fields: object) -> None:
        self._say(json.dumps(fields))


class Bar(Silent):
    """A bar with rate, remaining time (counted down between units), failures, and how long a slow unit has run."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        self._pace: Pace | None = None
        self._at: _AtWork | None = None
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            self._pace_column(),
            TextColumn("{task.fields[failed]}", style="red", markup=False),
            TextColumn("{task.fields[last]}", markup=False),  # names of files may hold brackets
            console=Console(stderr=True),
            transient=True,
        )

    def _pace_column(self) -> ProgressColumn:
        from rich.progress import ProgressColumn, Task
        from rich.text import Text

        bar = self

        class PaceColumn(ProgressColumn):
            def render(self, task: Task) -> Text:
                """Rate, remaining time, and how long the unit at work takes, at this moment."""
                return Text(bar._words(), style="progress.remaining")

        return PaceColumn()

    def _words(self) -> str:
        at = self._at
        words = [] if self._pace is None else [self._pace.words()]
        if at is not None and at.seconds >= SLOW:
            words.append(f"this one for {clock_time(at.seconds)}")
        return ", ".join(filter(None, words))

    def start(self, path: Path, units: int, done: int, batches: Sequence[Batch] = ()) -> None:
        """Show the bar."""
        self._pace = Pace(units - done, batches)
        self._progress.console.print(f"results go to {printable(str(path))}", highlight=False, markup=False)
        self._task = self._progress.add_task("measuring", total=units, completed=done, last="", failed="")

    def batch_begun(self, batch: Batch) -> None:
        """Name it."""
        self._at = _AtWork(batch)
        self._name(batch[0])

    def _name(self, unit: Unit) -> None:
        self._progress.update(self._task, last=in_line(unit.samples[0].id)[:40])

    def unit_done(self, unit: Unit, outcome: UnitOutcome) -> None:
        """Advance it; failures stay on the screen."""
        assert self._pace is not None
        self._pace.unit_done(unit, outcome)
        if outcome.outcome == "failed":
            self._progress.console.print(_describe(unit, outcome), highlight=False, markup=False)
        failed = f"{self._pace.failed} failed" if self._pace.failed else ""
        self._progress.update(self._task, advance=1, failed=failed)
        if self._at is None:
            self._name(unit)

    def remark(self, text: str) -> None:
        """A line that stays on the screen."""
        self._progress.console.print(f"note: {printable(text)}", highlight=False, markup=False)

    def caution(self, text: str) -> None:
        """A line that stays on the screen."""
        self._progress.console.print(f"warning: {printable(text)}", highlight=False, markup=False)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with signals.held():  # a second Ctrl-C is not to leave the terminal without its cursor
            self._progress.stop()


def _echo(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        click.echo(line, err=True)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _named(unit: Unit) -> str:
    return f"{unit.probe} {' -> '.join(in_line(sample.id) for sample in unit.samples[:2])}"


def _describe(unit: Unit, outcome: UnitOutcome) -> str:
    text = f"{_named(unit)}: {outcome.outcome}"
    if outcome.status not in ("", "ok"):
        text += f", {outcome.status}"
    if outcome.outcome == "failed":
        text += "\n    " + outcome.message.replace("\n", "\n    ")
    return printable(text)
