"""``equivengine ls``: what is installed."""

from __future__ import annotations

from typing import Any

import click

from equivengine.cli.options import json_option

KINDS = ["plugins", "probes", "models", "datasets", "executors"]


@click.command("ls")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--load", is_flag=True, help="For plugins: load them, and say which fail.")
@json_option
@click.pass_context
def command(ctx: click.Context, kind: str, load: bool, as_json: bool) -> int:
    """List plugins, probes (with their parameters), model families, image sets or executors."""
    from equivengine.cli.output import print_json, print_table

    rows = _plugins(ctx, load) if kind == "plugins" else _provided(ctx, kind)
    if as_json:
        print_json({kind: rows})
        return 0
    if kind == "plugins":
        columns = ["name", "state", "provides", "package", "reason"] if load else ["name", "module", "package"]
    elif kind == "probes":
        columns = ["name", "version", "arity", "summary", "parameters"]
    elif kind == "executors":
        columns = ["name", "summary"]
    else:
        columns = ["name", "summary", "examples"]
    print_table(columns, [[_cell(row.get(column)) for column in columns] for row in rows])
    if kind == "probes":
        click.echo("Every parameter with its meaning, unit and default: equivengine ls probes --json")
    return 0


def _plugins(ctx: click.Context, load: bool) -> list[dict[str, Any]]:
    from equivengine.runtime import registry

    records = registry.from_environment(ctx.obj["blocked"]).records if load else registry.installed()
    rows = []
    for record in records:
        row: dict[str, Any] = {
            "name": record.name,
            "module": record.module,
            "package": f"{record.distribution} {record.version}",
        }
        if load:
            row |= {
                "state": record.state,
                "provides": [f"{kind}: {', '.join(names)}" for kind, names in record.provides.items()],
                "reason": record.reason,
                "seconds": round(record.seconds, 4),
            }
        rows.append(row)
    return rows


def _provided(ctx: click.Context, kind: str) -> list[dict[str, Any]]:
    from equivengine.runtime import registry

    loaded = registry.from_environment(ctx.obj["blocked"])
    shelf: Any = {
        "probes": loaded.probes,
        "models": loaded.backends,
        "datasets": loaded.datasets,
        "executors": loaded.executors,
    }[kind]
    rows = []
    for name in shelf.names():
        if name in shelf.collisions():
            owners = "; ".join(record.owner for record in shelf.collisions()[name])
            rows.append({"name": name, "summary": f"claimed by two plugins: {owners}", "owner": owners})
            continue
        cls, owner = shelf.find(name)
        row: dict[str, Any] = {"name": name, "summary": cls.summary, "owner": owner.owner}
        if kind == "probes":
            row |= {
                "version": cls.version,
                "arity": cls.arity,
                "parameters": [
                    {
                        "name": key,
                        "default": field.default,
                        "description": field.description or "",
                        "type": _type(field.annotation),
                    }
                    for key, field in cls.Params.model_fields.items()
                ],
            }
        elif kind != "executors":
            row["examples"] = list(cls.examples)
        rows.append(row)
    return rows


def _type(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation).replace("typing.", "")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(item["name"] if isinstance(item, dict) else str(item) for item in value)
    return "" if value is None else str(value)
