"""``equivengine export``: the results of a run as tables, or as one document, for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from equivengine.cli.text import printable
from equivengine.errors import UsageError

if TYPE_CHECKING:
    from equivengine.report.formats import Format
    from equivengine.store import Run

HELP = """Write the results of a run directory or a run.h5 for other programs.

\b
--csv, --parquet  a directory of tables: units-PROBE has a row for each unit,
                  scalars and checks a row for each number, columns says what
                  every column is, and in which unit
--json            one document: everything but the values of arrays and pictures

Failed units are rows too. docs/export.md describes the columns.
"""


@click.command("export", help=HELP)
@click.argument("run", type=click.Path())
@click.option("--csv", "as_csv", is_flag=True, help="Tables as CSV files.")
@click.option("--parquet", "as_parquet", is_flag=True, help="Tables as Parquet files; needs equivengine[parquet].")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, on stdout unless --out names a file.")
@click.option(
    "--out",
    metavar="PATH",
    help="A directory; or a file (.csv, .parquet, .json) or - (stdout) for one table or the document.  "
    "[default: export beside run.h5]",
)
@click.option("--probe", "--plugin", "probe", metavar="NAME", help="Units of this probe only.")
@click.option("--long", is_flag=True, help="With one file: a row for each scalar of each unit.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def command(
    run: str,
    as_csv: bool,
    as_parquet: bool,
    as_json: bool,
    out: str | None,
    probe: str | None,
    long: bool,
    force: bool,
) -> int:
    """Write the results of a run."""
    from equivengine.store import open_run

    if as_csv + as_parquet + as_json != 1:
        what = "there are several formats" if as_csv + as_parquet + as_json else "the format is missing"
        raise UsageError(what, expected="one of --csv, --parquet and --json")
    if long and as_json:
        raise UsageError("--long has no meaning with --json", hint="leave it out")
    with open_run(run) as opened:
        if as_json:
            _document(opened, out or "-", probe, force)
        else:
            _tables(opened, out, "csv" if as_csv else "parquet", probe, long, force)
        if opened.missing:
            count = len(opened.missing)
            noun = "units of the plan are" if count > 1 else "unit of the plan is"
            click.echo(f"note: {count} {noun} missing, and not exported", err=True)
    return 0


def _document(run: Run, out: str, probe: str | None, force: bool) -> None:
    from equivengine.report.export import export_document

    if out == "-":
        export_document(run, _stdout(), probe=probe)
        return
    export_document(run, Path(out), probe=probe, overwrite=force)
    click.echo(printable(out))


def _tables(run: Run, out: str | None, form: Format, probe: str | None, long: bool, force: bool) -> None:
    from equivengine.contracts.wording import counted
    from equivengine.report.export import export_tables, export_units

    if out != "-" and Path(out or "").suffix != f".{form}":
        if long:
            raise UsageError("--long is for one file", expected=f"--out FILE.{form} or --out -", got=out)
        directory = Path(out) if out else (run.path if run.path.is_dir() else run.path.parent) / "export"
        for file in export_tables(run, directory, form, probe=probe, overwrite=force):
            rows, columns = counted(file.rows, "row"), counted(file.columns, "column")
            click.echo(printable(f"{file.path}: {rows}, {columns}"))
        return
    if out == "-":
        if form == "parquet" and sys.stdout.isatty():
            raise UsageError("a terminal cannot show Parquet", hint="pass --out FILE.parquet, or redirect stdout")
        export_units(run, _stdout(), form, probe=probe, long=long)
        return
    export_units(run, Path(str(out)), form, probe=probe, long=long, overwrite=force)
    click.echo(printable(str(out)))


def _stdout() -> BinaryIO:
    """Bytes as they are, whatever the terminal's encoding."""
    sys.stdout.flush()
    return sys.stdout.buffer
