"""``equivengine report``: one HTML page of a run."""

from __future__ import annotations

from pathlib import Path

import click

from equivengine.cli.text import printable

#: The page in the run directory, or beside a run.h5 whose name it takes.
PAGE = "report.html"
#: Findings that are printed; all are on the page.
FINDINGS = 20


@click.command("report")
@click.argument("run", type=click.Path())
@click.option("--out", type=click.Path(), metavar="FILE", help="The page.  [default: report.html in the run directory]")
@click.option(
    "--figures", type=click.IntRange(0), default=3, show_default=True, help="Units of each probe that are drawn."
)
@click.option(
    "--pictures", type=click.IntRange(0), default=12, show_default=True, help="Units whose pictures are shown."
)
@click.option(
    "--megabytes",
    type=click.FloatRange(0.1, 1000),
    default=5.0,
    show_default=True,
    help="Size of the page, at most, about: what does not fit is counted.",
)
@click.pass_context
def command(ctx: click.Context, run: str, out: str | None, figures: int, pictures: int, megabytes: float) -> int:
    """Write one self-contained HTML page of a run directory or a run.h5.

    It needs no network and holds no program: mail it, or put it beside a paper. Findings and figures are worded and
    drawn by the installed probes; without them, the stored numbers are shown plainly.
    """
    from equivengine.report.page import write_report
    from equivengine.runtime.registry import from_environment
    from equivengine.store import open_run

    with open_run(run) as opened:
        given = Path(run)
        beside = given / PAGE if given.is_dir() else given.with_suffix(".report.html")
        path = Path(out) if out else beside
        registry = from_environment(ctx.obj["blocked"])
        page = write_report(opened, registry, path, figures=figures, pictures=pictures, megabytes=megabytes)
    for remark in page.remarks:
        click.echo(f"note: {printable(remark)}", err=True)
    for finding in page.findings[:FINDINGS]:
        click.echo(printable(f"{finding.where}: {' '.join(finding.sentences)}"))
    if len(page.findings) > FINDINGS:
        click.echo(f"and {len(page.findings) - FINDINGS} more findings on the page")
    click.echo(printable(f"{path} ({path.stat().st_size / 1e6:.1f} MB)"))
    return 0
