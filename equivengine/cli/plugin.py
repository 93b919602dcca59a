"""``equivengine plugin``: check a plugin against its contract, or begin one of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from equivengine.cli.options import json_option
from equivengine.cli.text import command_line, printable

if TYPE_CHECKING:
    from equivengine.cli.plugin_check import Section
    from equivengine.testing.verdict import Verdict

KINDS = ["backend", "probe", "dataset"]

#: How a state stands in the listing.
_MARKS = {
    "passed": "ok",
    "failed": "FAILED",
    "not tried": "-",
    "expected failure": "expected",
    "unexpected pass": "FAILED",
}


@click.group("plugin")
def command() -> None:
    """Check plugins, and begin new ones."""


CHECK = """Hold an installed plugin to the contract, and explain what is wrong with it.

NAME is that of the entry point; see `equivengine ls plugins`. The plugin runs in a process of its own: it may exit,
hang or crash.

\b
Examples:
  equivengine plugin check digits
  equivengine plugin check timm --model "timm:vit_tiny_patch16_224?weights=random&seed=0"
  equivengine plugin check ldlc --model digits --images digits --set directions=4
"""


@command.command("check", help=CHECK, short_help="Hold an installed plugin to the contract.")
@click.argument("name")
@click.option("--model", metavar="URI", help="The model to check, or what to try a probe on.  [default: an example]")
@click.option("--images", metavar="URI", help="Samples for it, or the image set to check.  [default: an example]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter of the probe; repeatable.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time for one requirement.",
)
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    name: str,
    model: str | None,
    images: str | None,
    settings: tuple[str, ...],
    timeout: float,
    as_json: bool,
) -> int:
    """Check one plugin."""
    from equivengine.cli.output import print_json
    from equivengine.cli.plugin_check import check_plugin
    from equivengine.cli.plugin_worker import Request
    from equivengine.runtime.config import parse_settings
    from equivengine.runtime.registry import check_names, installed

    records = installed()
    check_names([name], {record.name for record in records}, "plugin check")
    parse_settings(settings)  # a typing error is one here already
    record = next(record for record in records if record.name == name)
    shown: list[str] = []
    untried: set[tuple[str, str]] = set()

    def show(section: Section, verdict: Verdict) -> None:
        if as_json:
            return
        if section.title not in shown:
            shown.append(section.title)
            click.echo(printable(f"{record.owner}" if section.key == "plugin" else f"\n{section.title}"))
        if verdict.state == "not tried":  # one line for each reason: a model that does not load has thirty
            if (section.key, verdict.what) in untried:
                return
            untried.add((section.key, verdict.what))
        for line in _lines(verdict):
            click.echo(printable(line))

    request = Request(name, model, images, tuple(settings))
    sections = check_plugin(request, limit=timeout, on_verdict=show)
    verdicts = [verdict for section in sections for verdict in section.verdicts]
    good = all(verdict.good for verdict in verdicts)
    if as_json:
        print_json(_document(record.name, record.module, f"{record.distribution} {record.version}", sections, good))
    else:
        click.echo(printable(_sum(name, verdicts)))
    return 0 if good else 1


def _lines(verdict: Verdict) -> list[str]:
    text = f"  {_MARKS[verdict.state]:9} {verdict.sentence}"
    if verdict.state == "passed":
        return [f"{text} ({verdict.remark})" if verdict.remark else text]
    if verdict.state == "not tried":
        return [f"{text}: not tried, {verdict.what}"]
    if verdict.state == "expected failure":
        return [f"{text}: {verdict.reason}"]
    indent = " " * 14
    details = [f"{indent}{word}: {part}" for word, part in verdict.details()]
    return [f"{text} [{verdict.name}]", f"{indent}{verdict.what}", *details]


def _sum(name: str, verdicts: list[Verdict]) -> str:
    counts = {state: sum(verdict.state == state for verdict in verdicts) for state in _MARKS}
    bad = counts["failed"] + counts["unexpected pass"]
    words = [f"{counts['passed']} requirements hold", f"{bad} {'does' if bad == 1 else 'do'} not"]
    words += [f"{counts[state]} {state}" for state in ("expected failure", "not tried") if counts[state]]
    return f"\n{name}: {', '.join(words)}"


def _document(name: str, module: str, package: str, sections: list[Section], good: bool) -> dict[str, Any]:
    return {
        "plugin": name,
        "module": module,
        "package": package,
        "passed": good,
        "sections": [
            {
                "section": section.key,
                "title": section.title,
                "verdicts": [verdict.to_json() for verdict in section.verdicts],
            }
            for section in sections
        ],
    }


NEW = """Write the distribution of a new plugin: code, entry point, test and README.

It can be installed and checked as it is. NAME is what users will type: in lower case, with digits and underscores.

\b
Examples:
  equivengine plugin new mynet --kind backend
  equivengine plugin new sharpness --kind probe --out work/sharpness
"""


@command.command("new", help=NEW, short_help="Write the distribution of a new plugin.")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What it provides.")
@click.option("--out", type=click.Path(), metavar="DIR", help="Directory to write.  [default: equivengine-NAME]")
def new(name: str, kind: str, out: str | None) -> int:
    """Begin a plugin."""
    from equivengine.cli.plugin_new import write_plugin

    written = write_plugin(name, kind, out)
    click.echo(printable(f"wrote {written.folder}"))
    for file in written.files:
        click.echo(printable(f"  {file}"))
    click.echo("next:")
    click.echo(f"  pip install -e {command_line(written.folder)}")
    click.echo(f"  equivengine plugin check {name}")
    click.echo(f"  pytest {command_line(written.folder)}")
    return 0
