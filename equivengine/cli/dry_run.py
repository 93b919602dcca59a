"""``equivengine run --dry-run``: what a run file would do, how long it would take, and whether it fits on the disk."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from equivengine.cli.execution import note_duplicates, stdout_for_json
from equivengine.cli.output import print_json, print_table
from equivengine.cli.pace import clock_time
from equivengine.cli.text import printable
from equivengine.contracts.unit import SampleRef, settings
from equivengine.contracts.wording import counted
from equivengine.runtime.config import RunConfig
from equivengine.runtime.engine import default_name, plan_of
from equivengine.runtime.estimate import Estimate, Kind, Range, estimate, kinds_of
from equivengine.runtime.plan import Plan
from equivengine.runtime.registry import from_environment
from equivengine.runtime.room import check_room, doubt, free_bytes, size_text

#: Lines of the table that are printed; ``--json`` has all.
MOST_ROWS = 60


def print_plan(ctx: click.Context, config: RunConfig, *, as_json: bool, each: bool, estimated: bool) -> None:
    """Print what a configuration would do; nothing is written but to the folder for temporary files.

    Args:
        ctx: Of the command.
        config: What to do.
        as_json: One document, with every unit.
        each: A line for each unit.
        estimated: Run a few batches, and say what the whole would take.

    Raises:
        StoreError: If it does not fit on the disk of the run directory, or, with stop rules, what of it is needed in
            any case does not; the table is printed first.
        EngineError: If the plan cannot be made.
    """
    with stdout_for_json(as_json):
        plan, bench = plan_of(config, from_environment(ctx.obj["blocked"]))
        found = None
        if estimated:
            quiet = ctx.obj["quiet"]
            if not quiet:
                click.echo("estimating: a few units of each kind are measured and thrown away", err=True)
            words = _words(kinds_of(plan))
            said = _nothing if quiet else functools.partial(_say, words)
            found = estimate(plan, bench, blocked=ctx.obj["blocked"], on_kind=said)
    out = Path(config.out) if config.out else Path("runs") / default_name(config, plan)
    kinds = kinds_of(plan) if found is None else found.kinds
    if as_json:
        units = [{**unit.to_json(), "unit_id": unit.unit_id} for unit in plan.units]
        document = {"digest": plan.digest, "duplicates": plan.duplicates, **plan.to_json(), "units": units}
        print_json(
            {
                **document,
                "cautions": plan.cautions,
                "remarks": [list(pair) for pair in plan.remarks],
                "kinds": list(map(_kind, kinds)),
                "estimate": found and _estimate(found, out),
            }
        )
    else:
        _print(plan, kinds, found, out, each=each)
        note_duplicates(plan.duplicates)
    for uri, text in plan.remarks:
        click.echo(f"note: {printable(f'{uri}: {text}')}", err=True)
    for text in plan.cautions:
        click.echo(f"warning: {printable(text)}", err=True)
    if found is not None and found.bytes is not None and found.least_bytes is not None:
        hint = "pass --out on a larger disk, or plan less: fewer images, models or parameters"
        parts = "shards, pictures and run.h5 of"
        least = sum(kind.least for kind in kinds)
        surely = f", which {'is' if least == 1 else 'are'} needed in any case" if plan.stop_rules else ""
        check_room(found.least_bytes, out, f"{parts} {counted(least, 'unit')}{surely}", hint)
        if plan.stop_rules and (text := doubt(found.bytes, out, f"{parts} all {counted(len(plan.units), 'unit')}")):
            click.echo(f"warning: {printable(text)}", err=True)


def _print(plan: Plan, kinds: list[Kind], found: Estimate | None, out: Path, *, each: bool) -> None:
    if each:
        rows = [[u.probe, u.model, _samples(u.samples), u.precision, u.unit_id[:12]] for u in plan.units]
        print_table(["probe", "model", "samples", "precision", "unit"], rows)
        click.echo()
    words = _words(kinds)
    table = [row for kind in kinds for row in _rows(kind, words)]
    columns = ["probe", "parameters", "model", "precision", "images", "units", "s/unit", "a unit"]
    arithmetics = {kind.common.precision for kind in kinds}
    shown = [0, *([1] if any(words.values()) else []), 2, *([3] if len(arithmetics) > 1 else []), 4, 5]
    shown += [6, 7] if found is not None else []
    print_table([columns[column] for column in shown], [[row[column] for column in shown] for row in table[:MOST_ROWS]])
    if len(table) > MOST_ROWS:
        click.echo(f"... and {counted(len(table) - MOST_ROWS, 'more line')}; --json has all")
    count, calls = len(plan.units), len(plan.batches())
    probes = "probe" if len({kind.common.probe for kind in kinds}) == 1 else "probes"
    together = f" in {counted(calls, 'call')} of their {probes}" if calls < count else ""
    click.echo(f"{counted(count, 'unit')}{together}; plan {plan.digest[:12]}; nothing was written")
    if plan.stop_rules:
        least = sum(kind.least for kind in kinds)
        click.echo(f"at least {least:,} of them, those before the first look of each stop rule; at most all")
    if found is not None:
        _print_estimate(found, out, ranged=bool(plan.stop_rules))


def _print_estimate(found: Estimate, out: Path, *, ranged: bool) -> None:
    for kind in found.kinds:
        if kind.problem:
            common = kind.common
            click.echo(printable(f"no estimate: {common.probe} · {common.model}: {kind.problem}"))
    if found.seconds is not None and found.least_seconds is not None:
        most = _clock(found.seconds)
        said = f"at least {_clock(found.least_seconds)}; at most {most}" if ranged else most
        click.echo(
            f"time: {said}: in one process, one batch after the other, if all cost what the"
            " median, the fastest and the slowest batch did (half and twice where one was measured)"
        )
    if found.bytes is not None and found.least_bytes is not None:
        free = free_bytes(out)
        there = "" if free is None else f"; {size_text(free)} are free there"
        most = f"about {size_text(found.bytes)}"
        said = f"at least about {size_text(found.least_bytes)}, at most {most}" if ranged else most
        click.echo(printable(f"disk: {said} in {out}, run.h5 included{there}"))
    facts = found.measured_on
    count = sum(kind.batches for kind in found.kinds)
    click.echo(
        printable(
            f"measured now, on {counted(count, 'batch', 'batches')}: {facts['device']}, "
            f"{counted(facts['threads'], 'thread')}, {counted(facts['cores'], 'core')} "
            f"under a load of {facts['load_average']:.1f}, torch {facts['torch']}"
        )
    )


def _clock(seconds: Range) -> str:
    low, middle, high = map(clock_time, seconds)
    return f"about {middle}, {low} to {high}"


def _words(kinds: list[Kind]) -> dict[tuple[str, str], str]:
    """Parameters that set the units of a probe apart, by probe and parameters."""
    found = {}
    for probe in dict.fromkeys(kind.common.probe for kind in kinds):
        alike = {
            kind.common.params: replace(kind.common, model="", precision="")
            for kind in kinds
            if kind.common.probe == probe
        }
        found.update(
            {(probe, params): text for params, text in zip(alike, settings(list(alike.values())), strict=True)}
        )
    return found


def _rows(kind: Kind, words: dict[tuple[str, str], str]) -> list[list[str]]:
    """A line for each image set."""
    common = kind.common
    each = "-" if kind.seconds is None else f"{kind.seconds[1]:.3g}"
    size = "-" if kind.bytes is None else size_text(kind.bytes)
    start = [common.probe, words[common.probe, common.params], common.model, common.precision]
    return [[*start, images, f"{count:,}", each, size] for images, count in kind.images.items()]


def _kind(kind: Kind) -> dict[str, Any]:
    common = kind.common
    return {
        "probe": common.probe,
        "params": common.params,
        "model": common.model,
        "precision": common.precision,
        "units": kind.units,
        "least_units": kind.least,
        "images": dict(kind.images),
        "batches_measured": kind.batches,
        "seconds_per_unit": _ends(kind.seconds),
        "bytes_per_unit": kind.bytes,
        "problem": kind.problem,
    }


def _ends(seconds: Range | None) -> dict[str, float] | None:
    return None if seconds is None else dict(zip(("low", "middle", "high"), seconds, strict=True))


def _estimate(found: Estimate, out: Path) -> dict[str, Any]:
    return {
        "seconds": _ends(found.seconds),
        "least_seconds": _ends(found.least_seconds),
        "bytes": found.bytes,
        "least_bytes": found.least_bytes,
        "free_bytes": free_bytes(out),
        "directory": str(out),
        "loading_seconds": found.loading,
        "consolidation_seconds_per_unit": found.consolidation,
        "run_file_bytes_per_byte": found.run_file,
        "measured_on": found.measured_on,
    }


def _samples(samples: tuple[SampleRef, ...]) -> str:
    ids = [sample.id for sample in samples]
    return " -> ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")


def _say(words: dict[tuple[str, str], str], kind: Kind) -> None:
    common = kind.common
    result = f"{kind.seconds[1]:.3g} s/unit" if kind.seconds is not None else kind.problem
    name = " · ".join(filter(None, (common.probe, words[common.probe, common.params], common.model)))
    with contextlib.suppress(BrokenPipeError):
        click.echo(printable(f"  {name}: {result}"), err=True)


def _nothing(kind: Kind) -> None:
    pass
