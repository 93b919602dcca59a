"""``equivengine run``: several probes, models and image sets in one plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from equivengine.cli.options import execution_options

HELP = """Carry out a TOML run file: every probe on every model and image set.

\b
# sweep.toml
title = "Two models"
description = "What to look at in the results."
models = ["digits", "timm:vit_small_patch16_224?weights=random"]
images = ["samples"]
limit = 2
[[probes]]
name = "spectrum"
[[probes]]
name = "ldlc"
set = { directions = 100 }
grid = { eps = [1e-4, 1e-3] }
limit = 1

Further entries: targets, pairing, limits, for_models, order, stop, seed, precision, device, executor, executor_set,
out. A probe may stand there several times, with different parameters; grid runs every combination. An image set may be
a table with a limit of its own: { uri = "digits", limit = 10 }. So may a model, with precision, limit and parameters of
probes: { uri = "digits", precision = "fp64", set = { ldlc = { together = 8 } } }.

Options given here count more than the file, for device and executor also the environment: --model and --images, once or
several times, stand in place of all of the file's, and so does each other option.

\b
Examples:
  equivengine run sweep.toml --dry-run
  equivengine run recipes/fig4.toml
  equivengine run recipes/fig4.toml --model open_clip:ViT-B-32/laion2b_s34b_b79k --images folder:photos --limit 2
"""

#: Options that say where work is done; those of `_MEASURED` say what is measured. Both are entries of a run file.
_PLACES = ("device", "executor", "executor_set", "out")
_MEASURED = ("models", "images", "targets", "pairing", "limit", "order", "seed", "precision")


@click.command("run", help=HELP)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print the plan and what it would take, and stop.")
@click.option("--units", is_flag=True, help="With --dry-run: a line for each unit.")
@click.option(
    "--estimate/--no-estimate",
    default=True,
    help="With --dry-run: measure a few units of each kind, and say how long all take and how large they are.",
)
@click.option("--model", "models", multiple=True, metavar="URI", help="An encoder; repeatable.")
@click.option("--images", multiple=True, metavar="URI", help="A set of inputs; repeatable.")
@click.option("--targets", metavar="URI", help="Drawn from at random, for pairs and references.")
@click.option(
    "--pairing", type=click.Choice(["any", "other-class", "one-target"]), help="Which targets pairs may take."
)
@click.option("--limit", type=int, metavar="N", help="Take the first N images of each set.")
@click.option(
    "--order", type=click.Choice(["own", "random"]), help="Take images as they stand in their set, or at random."
)
@click.option("--seed", type=int, metavar="N", help="Seed of everything random.")
@click.option("--precision", type=click.Choice(["fp32", "fp64"]), help="Arithmetic.")
@click.option("--out", type=click.Path(), metavar="DIR", help="Run directory.  [default: runs/..., named by content]")
@execution_options
@click.pass_context
def command(ctx: click.Context, file: Path, dry_run: bool, **options: Any) -> int:
    """Carry out a run file."""
    from equivengine.cli.execution import execute_and_print
    from equivengine.runtime.config import load_toml

    given = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in options.items()
        if key in (*_PLACES, *_MEASURED) and ctx.get_parameter_source(key) is not click.core.ParameterSource.DEFAULT
    }
    config = load_toml(file, given)
    if dry_run:
        from equivengine.cli.dry_run import print_plan

        print_plan(ctx, config, as_json=options["as_json"], each=options["units"], estimated=options["estimate"])
        return 0
    return execute_and_print(ctx, config, as_json=options["as_json"], progress=options["progress"])
