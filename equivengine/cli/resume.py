"""``equivengine resume``: finish what is missing, failed or damaged."""

from __future__ import annotations

from typing import Any

import click

from equivengine.cli.options import execution_options


@click.command("resume")
@click.argument("run", type=click.Path())
@execution_options
@click.pass_context
def command(ctx: click.Context, run: str, **options: Any) -> int:
    """Finish what is missing, failed or damaged in a run directory.

    Everything in it is read first. What `equivengine verify` would find damaged is moved to RUN/damaged and computed
    again; nothing else that was published is. Images and weights must be what they were when the run was planned.
    """
    from equivengine.cli.execution import resume_and_print

    return resume_and_print(
        ctx,
        run,
        device=options["device"],
        executor=options["executor"],
        executor_set=options["executor_set"],
        as_json=options["as_json"],
        progress=options["progress"],
    )
