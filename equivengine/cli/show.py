"""``equivengine show``: the summary of a run, or the runs of a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from equivengine.cli.options import json_option
from equivengine.cli.text import command_line

if TYPE_CHECKING:
    from equivengine.report.overview import Overview

#: Names of models or probes in one cell.
NAMES = 3


@click.command("show")
@click.argument("run", type=click.Path())
@json_option
def command(run: str, as_json: bool) -> int:
    """Print the summary table of a run directory or a run.h5.

    Of a folder with run directories in it, such as `runs`, list them: units done, failed and planned, probes, models,
    and when each began (UTC).
    """
    from equivengine.cli.output import print_json
    from equivengine.cli.summary import print_run, run_document
    from equivengine.store import open_run
    from equivengine.store.folder import is_run, runs_in

    path = Path(run)
    if path.is_dir() and not is_run(path) and runs_in(path):
        _list(path, as_json)
        return 0
    with open_run(run) as opened:
        if as_json:
            print_json(run_document(opened))
        else:
            print_run(opened)
    return 0


def _list(folder: Path, as_json: bool) -> None:
    from equivengine.cli.output import console, literal, print_json, print_table
    from equivengine.report.overview import overview

    found = overview(folder)
    if as_json:
        print_json({"folder": str(folder), "runs": [{**asdict(one), "path": str(one.path)} for one in found]})
        return
    print_table(("run", "units", "probes", "models", "began"), [_row(one) for one in found])
    out = console()
    for one in found:
        if one.error:
            out.print(literal(f"{one.path.name} cannot be read: {one.error}", "red"), soft_wrap=True)
    out.print(literal("next:", "bold"))
    whole = next((one for one in found if not one.error), found[0])
    command = "verify" if whole.error else "show"
    out.print(literal(f"  {command_line('equivengine', command, whole.path)}"), soft_wrap=True)
    unfinished = [one for one in found if one.done < one.planned]
    for one in unfinished[:NAMES]:
        out.print(literal(f"  {command_line('equivengine', 'resume', one.path)}"), soft_wrap=True)


def _row(run: Overview) -> tuple[str, str, str, str, str]:
    if run.error:
        return run.path.name, "?", "", "", ""
    units = f"{run.done:,} of {run.planned:,}" + (f", {run.failed:,} failed" if run.failed else "")
    return run.path.name, units, _some(run.probes), _some(run.models), run.started[:16].replace("T", " ")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    return ", ".join(names[:NAMES]) + more
