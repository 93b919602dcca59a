"""``equivengine doctor``: what this installation consists of, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from equivengine.cli.options import json_option

if TYPE_CHECKING:
    from equivengine.runtime.registry import Registry


@click.command("doctor")
@click.option("--short", is_flag=True, help="A few lines.")
@click.option("--model", metavar="URI", help="Say how this model's derivative is evaluated, operation by operation.")
@click.option("--device", default="auto", metavar="DEVICE", help="Where the model goes: auto, cpu, cuda or cuda:N.")
@json_option
@click.pass_context
def command(ctx: click.Context, short: bool, model: str | None, device: str, as_json: bool) -> int:
    """Say what this installation consists of and what is broken.

    Looks at torch, CUDA, the compiled extension, the processor and all plugins. Exit code 1 if something is broken; a
    plugin that only lacks an optional package is not. With --model: which of its operations run fused kernels.
    """
    from equivengine.cli.output import print_json
    from equivengine.runtime.registry import from_environment

    registry = from_environment(ctx.obj["blocked"])
    facts = _facts(registry)
    if model is not None:
        from equivengine.cli.doctor_model import model_facts, print_model

        facts["model"] = model_facts(model, device, registry)
    if as_json:
        print_json(facts)
    elif short:
        for line in _short(facts):
            click.echo(line)
    else:
        _print(facts)
    if model is not None and not as_json:
        click.echo()
        print_model(facts["model"])
    return 1 if facts["problems"] else 0


def _facts(loaded: Registry) -> dict[str, Any]:
    import torch

    from equivengine.errors import ExtensionError
    from equivengine.ops import extension
    from equivengine.runtime.provenance import describe_device, environment

    problems = []
    try:
        extension.load()
    except ExtensionError as error:
        problems.append(str(error))
    facts = environment()
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
        return f"extension: not in use, reference path ({next(iter(extension['reason'].splitlines()), 'unknown')})"
    built = extension["facts"]
    cuda = f"CUDA {built['cuda']} for {_listed(built['cuda_arch'])}" if built.get("cuda") else "no CUDA part"
    return f"extension: loaded, CPU kernels {built.get('isa_chosen')}, {cuda}"


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _short(facts: dict[str, Any]) -> list[str]:
    gpus = [d["name"] for d in facts["devices"] if d["type"] == "cuda"]
    states = [plugin["state"] for plugin in facts["plugins"]]
    lines = [
        f"equivengine {facts.get('equivengine', '?')}, torch {facts.get('libraries', {}).get('torch', '?')}, "
        + (f"GPU {', '.join(gpus)}" if gpus else "no GPU"),
        _extension_line(facts),
        f"plugins: {states.count('loaded')} loaded"
        + "".join(
            f", {states.count(state)} {words}"
            for state, words in (("needs", "without a package"), ("blocked", "left out"), ("failed", "failed"))
            if state in states
        ),
    ]
    return lines + _problems(facts)


def _problems(facts: dict[str, Any]) -> list[str]:
    return [f"PROBLEM: {problem}" for problem in facts["problems"]]


def _print(facts: dict[str, Any]) -> None:
    from equivengine.cli.output import console, literal, print_table

    out = console()
    for line in _short(facts)[:2]:
        out.print(literal(line))
    out.print(literal(f"python {facts['python']}, {facts['platform']}, {_threads(facts['threads'])}"))
    for device in facts["devices"]:
        out.print(literal(f"device: {', '.join(map(str, device.values()))}"))
    out.print(literal("libraries: " + ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())))
    out.print()
    print_table(
        ["plugin", "state", "package", "seconds"],
        [[p["name"], p["state"], p["package"], f"{p['seconds']:.3f}"] for p in facts["plugins"]],
    )
    out.print()
    for plugin in facts["plugins"]:
        if plugin["reason"] and plugin["state"] != "failed":  # those that failed are among the problems
            out.print(literal(f"{plugin['name']}: {plugin['reason']}"))
    for problem in _problems(facts):
        out.print(literal(problem, "red"))
    if not facts["problems"]:
        out.print("no problems found")


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"
