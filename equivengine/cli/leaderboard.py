"""``equivengine leaderboard``: many models in one table."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from equivengine.cli.options import json_option
from equivengine.cli.text import printable
from equivengine.errors import UsageError

if TYPE_CHECKING:
    from equivengine.report.formats import Format
    from equivengine.report.standings import Entry, Leaderboard
    from equivengine.report.tables import Table

HELP = """Put the models of one or many runs into one table: a row for each, a column for each headline of a probe.

\b
  equivengine leaderboard runs/sweep --out leaderboard.html
  equivengine leaderboard runs/a runs/b --csv models.csv --common
  equivengine leaderboard runs/sweep --scalar spectrum.s_1 --sort spectrum.s_1

Probes say which of their scalars are headlines: LDLC ratios, effective rank, smallest change that matches, transfer
rate. Units of one model are taken together, whichever run they stand in. docs/compare.md says what n and intervals are.
"""


@click.command("leaderboard", help=HELP, short_help="Many models in one table, page or file.")
@click.argument("runs", type=click.Path(), nargs=-1, required=True, metavar="RUN...")
@click.option("--out", type=click.Path(), metavar="FILE", help="Also write an HTML page; it sorts by any column.")
@click.option("--csv", type=click.Path(), metavar="FILE", help="Also write the table as CSV.")
@click.option(
    "--parquet", type=click.Path(), metavar="FILE", help="Also write it as Parquet; needs equivengine[parquet]."
)
@click.option("--scalar", "scalars", multiple=True, metavar="PROBE.NAME", help="A further column; repeatable.")
@click.option("--common", is_flag=True, help="Take only images that all models of a column have seen.")
@click.option("--sort", metavar="COLUMN", help="Sort by a column, largest first: PROBE.NAME.")
@click.option("--force", is_flag=True, help="Replace tables that are there.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[str, ...],
    out: str | None,
    csv: str | None,
    parquet: str | None,
    scalars: tuple[str, ...],
    common: bool,
    sort: str | None,
    force: bool,
    as_json: bool,
) -> int:
    """Put models into one table."""
    from equivengine.cli.output import print_json
    from equivengine.report.leaderboard import leaderboard
    from equivengine.report.leaderboard_page import table_of, write_page
    from equivengine.report.presentation import Presenter
    from equivengine.runtime.registry import from_environment
    from equivengine.store import open_run

    tables: list[tuple[Path, Format]] = []
    for given, form in ((csv, "csv"), (parquet, "parquet")):
        if given is not None:
            tables.append((Path(given), "csv" if form == "csv" else "parquet"))
    registry = from_environment(ctx.obj["blocked"])
    presenter = Presenter(registry, "its headlines are not known (--scalar PROBE.NAME names columns)")
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_run(run)) for run in dict.fromkeys(runs)]
        board = leaderboard(opened, presenter, scalars=scalars, common=common, sort=sort)
    written = []
    for path, form in tables:
        _write(table_of(board), path, form, force)
        written.append(path)
    if out is not None:
        write_page(board, list(presenter.remarks), Path(out))
        written.append(Path(out))
    if as_json:
        print_json(_document(board, list(presenter.remarks)))
    else:
        for remark in presenter.remarks:
            click.echo(f"note: {printable(remark)}", err=True)
        _print(board)
    for path in written:
        click.echo(printable(f"{path} ({path.stat().st_size / 1e6:.1f} MB)"), err=as_json)
    return 0


def _write(table: Table, path: Path, form: Format, force: bool) -> None:
    from equivengine.report.export import export_table

    if path.is_dir():
        raise UsageError(f"{path} is a directory", expected=f"a file, such as models.{form}")
    export_table(table, path, form, overwrite=force)


def _document(board: Leaderboard, remarks: list[str]) -> dict[str, Any]:
    return {
        "runs": [{"run": path, "plan": plan} for path, plan in board.runs],
        "common": board.common,
        "cautions": [*board.cautions, *remarks],
        "metrics": [asdict(metric) for metric in board.metrics],
        "models": [
            {
                **{name: value for name, value in asdict(row).items() if name != "entries"},
                "entries": {
                    metric.key: asdict(entry) for metric, entry in zip(board.metrics, row.entries, strict=True)
                },
            }
            for row in board.rows
        ],
    }


def _print(board: Leaderboard) -> None:
    """A block for each column: names of models are long, and columns are many."""
    from rich.padding import Padding
    from rich.table import Table

    from equivengine.cli.output import console, literal
    from equivengine.contracts.wording import between, number

    out = console()
    for caution in board.cautions:
        out.print(literal(f"! {caution}", "yellow"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    for title in ("median, share", "interval", "n"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for place, metric in enumerate(board.metrics):
        unit = f", {metric.shown_unit}" if metric.shown_unit else ""
        table.add_row(literal(f"{metric.heading}{unit}", "bold"))
        for row in board.rows:
            entry = row.entries[place]
            name = Padding(literal(row.model), (0, 0, 0, 2))
            if entry.value is None:
                table.add_row(name, "-", "", "", literal(entry.why, "dim"))
                continue
            interval = "" if entry.interval is None else between(entry.interval)
            n = "" if entry.n is None else f"{entry.n:,}"
            value = " ".join(filter(None, (number(entry.value), entry.shown_unit(metric))))
            table.add_row(name, literal(value), literal(interval), literal(n), literal(_remark(entry)))
    out.print(table)


def _remark(entry: Entry) -> str:
    words = []
    if entry.kind == "min .. max":
        words.append("min .. max")
    if entry.noun != "image":
        words.append(f"n counts {entry.noun}s")
    if entry.not_converged:
        words.append(f"{entry.not_converged:,} not converged")
    if entry.failed:
        words.append(f"{entry.failed:,} more failed")
    return ", ".join(words)
