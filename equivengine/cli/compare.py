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
    from rich.table import Table

    from equivengine.report.comparison import Cell, Comparison
    from equivengine.report.paired import Difference
    from equivengine.report.summary import Middle

#: Lines of classes that are printed of one scalar; ``--json`` has all.
CLASSES = 20


@click.command("compare")
@click.argument("runs", type=click.Path(), nargs=-1, required=True, metavar="RUN...")
@click.option("--out", type=click.Path(), metavar="FILE", help="Also write an HTML page, with figures on common axes.")
@click.option("--per-class", is_flag=True, help="Also for each class of images, where units say which they are.")
@json_option
@click.pass_context
def command(ctx: click.Context, runs: tuple[str, ...], out: str | None, per_class: bool, as_json: bool) -> int:
    """Put the models of several runs, or of one, side by side, probe by probe.

    Says first what else differs between the columns: images, parameters, precision, versions. From the second column
    on, the ratio to the first (or the difference from it) on the same images stands below each number.
    """
    from equivengine.cli.output import print_json
    from equivengine.report.comparison import compare
    from equivengine.report.comparison_page import headlines_of, write_comparison
    from equivengine.report.presentation import Presenter
    from equivengine.runtime.registry import from_environment
    from equivengine.store import open_run

    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_run(run)) for run in runs]
        path = Path(out) if out else None
        if path is not None:
            comparisons = write_comparison(opened, from_environment(ctx.obj["blocked"]), path, per_class=per_class)
        elif per_class:
            registry = from_environment(ctx.obj["blocked"])
            asked = headlines_of(Presenter(registry, "its first scalars stand for it"))
            comparisons = compare(opened, per_class=True, headlines=asked)
        else:
            comparisons = compare(opened)
    if as_json:
        print_json({"comparisons": [_document(comparison) for comparison in comparisons]})
    else:
        for comparison in comparisons:
            _print(comparison)
    if path is not None:
        click.echo(printable(f"{path} ({path.stat().st_size / 1e6:.1f} MB)"), err=as_json)
    return 0


def _document(comparison: Comparison) -> dict[str, Any]:
    first, *others = comparison.columns
    return {
        "probe": comparison.probe,
        "cautions": list(comparison.cautions),
        "columns": [
            {"label": column.label, "images": column.images, **asdict(column.section)} for column in comparison.columns
        ],
        "differences": [
            {
                "column": column.label,
                "against": first.label,
                "scalars": {
                    line.name: asdict(cell.difference)
                    for line in comparison.lines
                    if (cell := line.cells[place]) is not None and cell.difference is not None
                },
            }
            for place, column in enumerate(others, 1)
        ],
        "classes": [
            {
                "class": line.label,
                "scalar": line.name,
                "unit": line.unit,
                "columns": [None if cell is None else asdict(cell) for cell in line.cells],
            }
            for line in comparison.classes
        ],
    }


def _print(comparison: Comparison) -> None:
    from rich.padding import Padding

    from equivengine.cli.output import console, literal
    from equivengine.contracts.wording import counted
    from equivengine.report.summary import by_group
    from equivengine.statistics import ENOUGH

    out = console()
    out.print(literal(comparison.probe, "bold"))
    for caution in comparison.cautions:
        out.print(literal(f"! {caution}", "yellow"))
    table = _table("median over images", comparison)
    for group, lines in by_group(comparison.lines):
        if group:
            table.add_row(literal(group, "bold"))
        for line in lines:
            cells = [
                literal(_cell(cell, column.interval, line.mixed))
                for cell, column in zip(line.cells, comparison.columns, strict=True)
            ]
            name = Padding(literal(line.description), (0, 0, 0, 2))
            table.add_row(name, *cells, literal(line.shown_unit))
    out.print(table)
    if comparison.classes:
        title = f"for each class of images; of n < {ENOUGH} min .. max, but for shares"
        table = _table(title, comparison, classes=True)
        for title in dict.fromkeys(line.title for line in comparison.classes):
            table.add_row(literal(title, "bold"))
            of_title = [line for line in comparison.classes if line.title == title]
            for each in of_title[:CLASSES]:
                cells = [
                    literal("" if c is None else _text(_with_n(c.middle, c.unit), _ends(c.middle), c.difference))
                    for c in each.cells
                ]
                name = Padding(literal(each.label), (0, 0, 0, 2))
                table.add_row(name, *cells, literal(each.shown_unit))
            if len(of_title) > CLASSES:
                table.add_row(
                    literal(f"  {counted(len(of_title) - CLASSES, 'more class', 'more classes')}: --json lists all")
                )
        out.print(table)
    first = comparison.columns[0].label
    out.print(
        literal(
            f"x, +, -: against {first} on the same images, medians or shares; * its interval leaves out no difference"
        )
    )
    out.print()


def _table(title: str, comparison: Comparison, *, classes: bool = False) -> Table:
    from rich.table import Table

    from equivengine.cli.output import literal
    from equivengine.contracts.wording import counted

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, overflow="fold")
    for column in comparison.columns:
        units = counted(column.section.units, column.section.noun)
        interval = "95% interval" if classes else column.interval
        table.add_column(literal(f"{column.label}\n{units}\n{interval}"), justify="right", overflow="fold")
    table.add_column("unit", no_wrap=True)
    return table


def _cell(cell: Cell | None, heading: str, own_unit: bool) -> str:
    if cell is None:
        return ""
    row = cell.row
    value = f"{row.shown} {row.shown_unit}" if own_unit and row.shown_unit else row.shown
    point = row.interval is None or all(end == row.value for end in row.interval)
    return _text(value, "" if point else row.shown_interval(heading), cell.difference)


def _with_n(middle: Middle, unit: str) -> str:
    from equivengine.contracts.wording import number

    return f"{number(middle.value)}{f' {unit}' if unit else ''}, n = {middle.n:,}"


def _ends(middle: Middle) -> str:
    from equivengine.contracts.wording import between

    ends = middle.ends
    return "" if ends is None or all(end == middle.value for end in ends) else between(ends)


def _text(value: str, interval: str, difference: Difference | None) -> str:
    lines = [value, *([interval] if interval else [])]
    if difference is not None and difference.n:
        lines.append(f"{difference}{'*' * difference.clear}")
    return "\n".join(lines)
