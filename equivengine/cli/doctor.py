"""``equivengine doctor``: what this installation consists of, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import click

from equivengine.cli.options import json_option


@click.command("doctor")
@click.option("--short", is_flag=True, help="A few lines.")
@json_option
@click.pass_context
def command(ctx: click.Context, short: bool, as_json: bool) -> int:
    """Check torch, CUDA, the compiled extension, the processor and all plugins. Exit code 1 if something is broken."""
    from equivengine.cli.output import print_json

    facts = _facts(ctx)
    if as_json:
        print_json(facts)
    elif short:
        for line in _short(facts):
            click.echo(line)
    else:
        _print(facts)
    return 1 if facts["problems"] else 0


def _facts(ctx: click.Context) -> dict[str, Any]:
    import torch

    from equivengine.errors import ExtensionError
    from equivengine.ops import extension
    from equivengine.runtime import registry
    from equivengine.runtime.provenance import describe_device, environment

    problems = []
    try:
        extension.load()
        facts = environment()
    except ExtensionError as error:
        problems.append(str(error))
        facts = {"extension": {"loaded": False, "reason": error.what, "facts": {}}}
    loaded = registry.from_environment(ctx.obj["blocked"])
    for record in loaded.records:
        if record.state == "failed":
            problems.append(f"{record.owner}: {record.reason}")
    for shelf in (loaded.probes, loaded.backends, loaded.datasets, loaded.executors):
        for name, owners in shelf.collisions().items():
            problems.append(f"{shelf.kind} {name!r} is claimed by {' and '.join(o.owner for o in owners)}")
    devices = [describe_device(torch.device("cpu"))]
    if torch.cuda.is_available():
        devices += [describe_device(torch.device("cuda", index)) for index in range(torch.cuda.device_count())]
    return {
        **facts,
        "devices": devices,
        "plugins": [
            {
                "name": r.name,
                "package": f"{r.distribution} {r.version}",
                "state": r.state,
                "reason": r.reason,
                "seconds": round(r.seconds, 4),
            }
            for r in loaded.records
        ],
        "problems": problems,
    }


def _extension_line(facts: dict[str, Any]) -> str:
    extension = facts["extension"]
    if not extension["loaded"]:
        return f"extension: not in use, reference path ({extension['reason']})"
    built = extension["facts"]
    cuda = f"CUDA {built['cuda']} for {built['cuda_arch']}" if built.get("cuda") else "no CUDA part"
    return f"extension: loaded, CPU kernels {built.get('isa_chosen')}, {cuda}"


def _short(facts: dict[str, Any]) -> list[str]:
    gpus = [d["name"] for d in facts["devices"] if d["type"] == "cuda"]
    states = [plugin["state"] for plugin in facts["plugins"]]
    lines = [
        f"equivengine {facts.get('equivengine', '?')}, torch {facts.get('libraries', {}).get('torch', '?')}, "
        + (f"GPU {', '.join(gpus)}" if gpus else "no GPU"),
        _extension_line(facts),
        f"plugins: {states.count('loaded')} loaded"
        + "".join(f", {states.count(s)} {s}" for s in ("needs", "blocked", "failed") if s in states),
    ]
    return lines + [f"PROBLEM: {problem}" for problem in facts["problems"]]


def _print(facts: dict[str, Any]) -> None:
    from equivengine.cli.output import print_table

    for line in _short(facts)[:2]:
        click.echo(line)
    click.echo(f"python {facts.get('python')}, {facts.get('platform')}, {facts.get('threads')} threads")
    for device in facts["devices"]:
        click.echo(f"device: {', '.join(f'{value}' for value in device.values())}")
    libraries = facts.get("libraries", {})
    click.echo("libraries: " + ", ".join(f"{name} {version}" for name, version in libraries.items()))
    click.echo("")
    print_table(
        ["plugin", "state", "package", "seconds", "reason"],
        [[p["name"], p["state"], p["package"], f"{p['seconds']:.3f}", p["reason"]] for p in facts["plugins"]],
    )
    for problem in facts["problems"]:
        click.secho(f"PROBLEM: {problem}", fg="red")
    if not facts["problems"]:
        click.echo("no problems found")
