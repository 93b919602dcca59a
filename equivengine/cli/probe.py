"""``equivengine probe``: one probe, one model, one image set."""

from __future__ import annotations

from typing import Any

import click

from equivengine.cli.options import execution_options


@click.command("probe")
@click.option("--plugin", "--probe", "probe", required=True, metavar="NAME", help="The probe; see `ls probes`.")
@click.option("--model", default="digits", show_default=True, metavar="URI", help="The encoder; see `ls models`.")
@click.option("--images", metavar="URI", help="The inputs; see `ls datasets`.  [default: digits, the first 4]")
@click.option("--targets", metavar="URI", help="Targets of pairs.  [default: the images, paired at random]")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take the first N images.  [default: all]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter of the probe; repeatable.")
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Seed.")
@click.option("--precision", type=click.Choice(["fp32", "fp64"]), default="fp32", show_default=True)
@click.option("--out", type=click.Path(), metavar="DIR", help="Run directory.  [default: runs/..., named by content]")
@execution_options
@click.pass_context
def command(
    ctx: click.Context, probe: str, images: str | None, limit: int | None, settings: Any, **options: Any
) -> int:
    """Measure something about an encoder at each image of a set.

    \b
    equivengine probe --plugin ldlc
    equivengine probe --plugin spectrum --model timm:vit_base_patch16_224 --images folder:photos
    equivengine probe --plugin ldlc --images samples --targets digits --set directions=1000 --set eps=1e-3

    A repeated command continues where it stopped, or shows what is there.
    """
    from equivengine.cli.execution import execute_and_print
    from equivengine.runtime.config import DEFAULT_LIMIT, parse_settings, validated

    if images is None:
        images, limit = "digits", limit or DEFAULT_LIMIT
    config = validated(
        {
            "probes": [{"name": probe, "set": parse_settings(settings)}],
            "models": [options["model"]],
            "images": [images],
            "targets": options["targets"],
            "limit": limit,
            **{key: options[key] for key in ("seed", "device", "precision", "executor", "out")},
        }
    )
    return execute_and_print(ctx, config, as_json=options["as_json"], progress=options["progress"])
