"""Runs a configuration for a command: progress on stderr, the summary on stdout, the exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from equivengine.cli import signals
from equivengine.cli.output import print_json
from equivengine.cli.progress import make_progress
from equivengine.cli.summary import print_run, run_document
from equivengine.cli.text import command_line, printable
from equivengine.contracts.wording import counted
from equivengine.runtime.config import RunConfig
from equivengine.runtime.engine import RunReport, execute, resume
from equivengine.runtime.ledger import Ledger
from equivengine.runtime.plan import Plan
from equivengine.runtime.registry import from_environment
from equivengine.runtime.worker import watched
from equivengine.store import RunDirectory, open_run

DONE, FAILED, SOME_FAILED = 0, 1, 3


def execute_and_print(ctx: click.Context, config: RunConfig, *, as_json: bool, progress: str) -> int:
    """Plan, run, print. Returns the exit code."""
    return _carry_out(ctx, lambda **hooks: execute(config, **hooks), as_json=as_json, progress=progress)


def resume_and_print(
    ctx: click.Context,
    path: str,
    *,
    device: str,
    executor: str,
    executor_set: dict[str, Any],
    as_json: bool,
    progress: str,
) -> int:
    """Finish a run, print. Returns the exit code."""
    return _carry_out(
        ctx,
        lambda **hooks: resume(path, device=device, executor=executor, executor_set=executor_set, **hooks),
        as_json=as_json,
        progress=progress,
    )


def _carry_out(ctx: click.Context, carry_out: Callable[..., RunReport], *, as_json: bool, progress: str) -> int:
    directory: list[Path] = []
    reporter = make_progress("none" if ctx.obj["quiet"] and progress == "auto" else progress)

    def planned(plan: Plan, path: Path, done: int) -> None:
        directory.append(path)
        for uri, text in plan.remarks:
            reporter.remark(f"{uri}: {text}")
        there = RunDirectory(path.absolute()).published(plan.units.ids) if done else ()
        reporter.start(path, len(plan.units), done, Ledger(plan, there).missing())

    try:
        with stdout_for_json(as_json), reporter, watched(reporter.batch_begun):
            registry = from_environment(ctx.obj["blocked"])
            report = carry_out(
                registry=registry,
                blocked=ctx.obj["blocked"],
                on_plan=planned,
                on_done=reporter.unit_done,
                on_caution=reporter.caution,
            )
    except KeyboardInterrupt as stop:
        with signals.held():  # a second Ctrl-C is not to hide how to go on
            if directory:
                click.echo("interrupted; what was published stays. Finish it with:", err=True)
                click.echo(f"  {command_line('equivengine', 'resume', directory[-1])}", err=True)
            else:
                click.echo("interrupted before the first unit; nothing was written", err=True)
        signals.leave_at_once()
        return signals.exit_code(stop)
    for moved in report.set_aside:
        place = moved.moved_to.relative_to(report.directory.absolute())
        click.echo(f"warning: {printable(moved.finding.error.what)}; it was moved to {printable(str(place))}", err=True)
    for problem in report.problems:
        click.echo(f"warning: {printable(problem)}", err=True)
    note_duplicates(report.duplicates)
    with open_run(report.directory) as run:
        if as_json:
            aside = [{"file": str(one.finding.path), "moved_to": str(one.moved_to)} for one in report.set_aside]
            done = {"outcomes": dict(report.outcomes), "seconds": round(report.seconds, 3), "set_aside": aside}
            print_json({**run_document(run), **done, "cautions": report.cautions})
        else:
            print_run(run, report)
    if not report.outcomes["failed"]:
        return DONE
    return SOME_FAILED if report.outcomes["published"] + report.outcomes["skipped"] else FAILED


def note_duplicates(count: int) -> None:
    """Say on stderr that units were left out, if any were."""
    if count:
        they = "it measures" if count == 1 else "they measure"
        click.echo(f"note: {counted(count, 'unit')} left out: {they} the same content as another one", err=True)


@contextlib.contextmanager
def stdout_for_json(as_json: bool) -> Iterator[None]:
    """While plugins run, send what they print to stderr: stdout holds one document."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield
