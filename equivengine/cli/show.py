"""``equivengine show``: the summary of a run."""

from __future__ import annotations

import click

from equivengine.cli.options import json_option


@click.command("show")
@click.argument("run", type=click.Path())
@json_option
def command(run: str, as_json: bool) -> int:
    """Print the summary table of a run directory or a run.h5."""
    from equivengine.cli.output import print_json
    from equivengine.cli.summary import print_run, run_document
    from equivengine.store import open_run

    with open_run(run) as opened:
        if as_json:
            print_json(run_document(opened))
        else:
            print_run(opened)
    return 0
