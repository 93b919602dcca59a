"""``equivengine run``: several probes, models and image sets in one plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from equivengine.cli.options import execution_options

HELP = """Carry out a TOML run file: every probe on every model and image set.

Options given here, or in the environment, count more than the file.

\b
# sweep.toml
models = ["digits", "timm:vit_small_patch16_224?weights=random"]
images = ["samples"]
limit = 2
[[probes]]
name = "spectrum"
[[probes]]
name = "ldlc"
set = { directions = 100, eps = 1e-3 }
"""


@click.command("run", help=HELP)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--out", type=click.Path(), metavar="DIR", help="Run directory.  [default: runs/..., named by content]")
@execution_options
@click.pass_context
def command(ctx: click.Context, file: Path, dry_run: bool, **options: Any) -> int:
    """Carry out a run file."""
    from equivengine.cli.execution import execute_and_print, print_plan
    from equivengine.runtime.config import load_toml

    given = {
        key: value
        for key, value in options.items()
        if key in ("device", "executor", "out")
        and ctx.get_parameter_source(key) is not click.core.ParameterSource.DEFAULT
    }
    config = load_toml(file, given)
    if dry_run:
        print_plan(ctx, config, as_json=options["as_json"])
        return 0
    return execute_and_print(ctx, config, as_json=options["as_json"], progress=options["progress"])
