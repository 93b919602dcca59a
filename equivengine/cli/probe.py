"""``equivengine probe``: one probe, one model, one image set."""

from __future__ import annotations

from typing import Any

import click

from equivengine.cli.options import execution_options

HELP = """Measure something about an encoder at each image of a set.

\b
Examples:
  equivengine probe --plugin ldlc
  equivengine probe --plugin spectrum --model timm:vit_base_patch16_224 --images folder:photos
  equivengine probe --plugin ldlc --images samples --targets digits --set directions=1000

A repeated command continues where it stopped, or shows what is there. Values of --set are JSON where they can be, text
otherwise.
"""


@click.command("probe", help=HELP)
@click.option(
    "--plugin", "--probe", "probe", required=True, metavar="NAME", help="The probe; see `equivengine ls probes`."
)
@click.option(
    "--model", default="digits", show_default=True, metavar="URI", help="The encoder; see `equivengine ls models`."
)
@click.option(
    "--images", metavar="URI", help="The inputs; see `equivengine ls datasets`.  [default: digits, the first 6]"
)
@click.option("--targets", metavar="URI", help="Drawn from at random, for pairs and references.  [default: the images]")
@click.option(
    "--pairing",
    type=click.Choice(["any", "other-class", "one-target"]),
    default="any",
    show_default=True,
    help="Targets: any image, one of another label than the original's, or one image for all.",
)
@click.option("--limit", type=int, metavar="N", help="Take the first N images.  [default: all]")
@click.option(
    "--order",
    type=click.Choice(["own", "random"]),
    default="own",
    show_default=True,
    help="Take images as they stand in their set, or at random.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter of the probe; repeatable.")
@click.option(
    "--stop",
    metavar="SCALAR=TOLERANCE",
    help="End the set where a scalar's median over images is known so well: half-width of its interval, relative.",
)
@click.option("--seed", type=int, metavar="N", default=0, show_default=True, help="Seed of everything random.")
@click.option("--precision", type=click.Choice(["fp32", "fp64"]), default="fp32", show_default=True, help="Arithmetic.")
@click.option("--out", type=click.Path(), metavar="DIR", help="Run directory.  [default: runs/..., named by content]")
@execution_options
@click.pass_context
def command(
    ctx: click.Context,
    probe: str,
    images: str | None,
    limit: int | None,
    settings: Any,
    stop: str | None,
    **options: Any,
) -> int:
    """Run one probe."""
    from equivengine.cli.execution import execute_and_print
    from equivengine.runtime.config import parse_settings, validated

    given = {
        "probes": [{"name": probe, "set": parse_settings(settings)}],
        "stop": [
            {"scalar": f"{probe}/{name}", "tolerance": value}
            for name, value in parse_settings(() if stop is None else (stop,), "--stop").items()
        ],
        "models": [options["model"]],
        "images": images,
        "limit": limit,
        **{key: options[key] for key in ("targets", "pairing", "order", "seed", "precision", "out")},
        **{key: options[key] for key in ("device", "executor", "executor_set")},
    }
    config = validated({key: value for key, value in given.items() if value is not None})
    return execute_and_print(ctx, config, as_json=options["as_json"], progress=options["progress"])
