"""Runs a configuration for a command: progress on stderr, the summary on stdout, the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click

from equivengine.cli.output import print_json, print_run, print_table, run_document
from equivengine.cli.progress import make_progress
from equivengine.runtime.config import RunConfig
from equivengine.runtime.engine import RunReport, execute, resume
from equivengine.runtime.plan import Plan, make_plan
from equivengine.runtime.registry import from_environment
from equivengine.store import open_run

DONE, FAILED, SOME_FAILED, INTERRUPTED = 0, 1, 3, 130


def execute_and_print(ctx: click.Context, config: RunConfig, *, as_json: bool, progress: str) -> int:
    """Plan, run, print. Returns the exit code."""
    return _carry_out(ctx, lambda **hooks: execute(config, **hooks), as_json=as_json, progress=progress)


def resume_and_print(ctx: click.Context, path: str, *, device: str, executor: str, as_json: bool, progress: str) -> int:
    """Finish a run, print. Returns the exit code."""
    return _carry_out(
        ctx,
        lambda **hooks: resume(path, device=device, executor=executor, **hooks),
        as_json=as_json,
        progress=progress,
    )


def print_plan(ctx: click.Context, config: RunConfig, *, as_json: bool) -> None:
    """Print what a configuration would do, one line for each unit."""
    from equivengine.runtime.loading import Workbench

    bench = Workbench(from_environment(ctx.obj["blocked"]), config.device, keep=max(1, len(config.models)))
    plan = make_plan(config, bench)
    if as_json:
        print_json({"digest": plan.digest, **plan.to_json()})
        return
    rows = [[u.probe, u.model, " -> ".join(s.id for s in u.samples), u.precision, u.unit_id[:12]] for u in plan.units]
    print_table(["probe", "model", "samples", "precision", "unit"], rows)
    click.echo(f"{len(plan.units)} units; plan {plan.digest[:12]}")


def _carry_out(
    ctx: click.Context,
    carry_out: Callable[..., RunReport],
    *,
    as_json: bool,
    progress: str,
) -> int:
    registry = from_environment(ctx.obj["blocked"])
    directory: list[Path] = []
    reporter = make_progress("none" if ctx.obj["quiet"] and progress == "auto" else progress)

    def planned(plan: Plan, path: Path, done: int) -> None:
        directory.append(path)
        reporter.start(path, len(plan.units), done)

    try:
        with reporter:
            report = carry_out(
                registry=registry, blocked=ctx.obj["blocked"], on_plan=planned, on_done=reporter.unit_done
            )
    except KeyboardInterrupt:
        if directory:
            click.echo(
                f"interrupted; what was published stays. Finish it with:\n  equivengine resume {_quoted(directory[-1])}",
                err=True,
            )
        else:
            click.echo("interrupted before the first unit; nothing was written", err=True)
        return INTERRUPTED
    for problem in report.problems:
        click.echo(f"warning: {problem}", err=True)
    if report.duplicates:
        click.echo(
            f"note: {report.duplicates} of the images have the same content as another one and were measured once",
            err=True,
        )
    with open_run(report.directory) as run:
        if as_json:
            print_json({**run_document(run), "outcomes": dict(report.outcomes), "seconds": round(report.seconds, 3)})
        else:
            print_run(run, report)
    failed = report.outcomes["failed"]
    if not failed:
        return DONE
    return SOME_FAILED if report.outcomes["published"] + report.outcomes["skipped"] else FAILED


def _quoted(path: Path) -> str:
    text = os.fspath(path)
    return f"'{text}'" if any(c in text for c in " '\"$&;()") else text
