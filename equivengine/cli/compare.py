"""``equivengine compare``: models side by side."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from equivengine.cli.options import json_option
from equivengine.cli.text import printable

if TYPE_CHECKING:
    from equivengine.report.comparison import Cell, Comparison


@click.command("compare")
@click.argument("runs", type=click.Path(), nargs=-1, required=True, metavar="RUN...")
@click.option("--out", type=click.Path(), metavar="FILE", help="Also write an HTML page, with figures on common axes.")
@json_option
@click.pass_context
def command(ctx: click.Context, runs: tuple[str, ...], out: str | None, as_json: bool) -> int:
    """Put the models of several runs, or of one, side by side, probe by probe.

    Says first what else differs between the columns: images, parameters, precision, versions.
    """
    from equivengine.cli.output import print_json
    from equivengine.report.comparison import compare
    from equivengine.report.comparison_page import write_comparison
    from equivengine.runtime.registry import from_environment
    from equivengine.store import open_run

    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_run(run)) for run in runs]
        path = Path(out) if out else None
        if path is None:
            comparisons = compare(opened)
        else:
            comparisons = write_comparison(opened, from_environment(ctx.obj["blocked"]), path)
    if as_json:
        print_json({"comparisons": [_document(comparison) for comparison in comparisons]})
    else:
        for comparison in comparisons:
            _print(comparison)
    if path is not None:
        click.echo(printable(f"{path} ({path.stat().st_size / 1e6:.1f} MB)"), err=as_json)
    return 0


def _document(comparison: Comparison) -> dict[str, Any]:
    return {
        "probe": comparison.probe,
        "cautions": list(comparison.cautions),
        "columns": [{"label": column.label, **asdict(column.section)} for column in comparison.columns],
    }


def _print(comparison: Comparison) -> None:
    from rich.padding import Padding
    from rich.table import Table

    from equivengine.cli.output import console, literal
    from equivengine.report.summary import by_group

    out = console()
    out.print(literal(comparison.probe, "bold"))
    for caution in comparison.cautions:
        out.print(literal(f"! {caution}", "yellow"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("median over units", overflow="fold")
    for column in comparison.columns:
        units = f"{column.section.units} {column.section.noun}{'s' * (column.section.units != 1)}"
        table.add_column(literal(f"{column.label}\n{units}"), justify="right", overflow="fold")
    table.add_column("unit", no_wrap=True)
    for group, lines in by_group(comparison.lines):
        if group:
            table.add_row(literal(group, "bold"))
        for line in lines:
            cells = [literal(_cell(cell)) for cell in line.cells]
            name = Padding(literal(line.description), (0, 0, 0, 2))
            table.add_row(name, *cells, literal("" if line.unit == "1" else line.unit))
    out.print(table)
    out.print()


def _cell(cell: Cell | None) -> str:
    from equivengine.contracts.wording import between, number

    if cell is None:
        return ""
    text, interval = number(cell.row.value), cell.row.interval
    if interval is None or interval == (cell.row.value, cell.row.value):
        return text
    return f"{text}\n{between(interval)}"
