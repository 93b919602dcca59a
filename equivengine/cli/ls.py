"""``equivengine ls``: what is installed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from equivengine.cli.options import json_option
from equivengine.cli.text import printable

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

#: What one unit of a probe takes, by its arity.
TAKES = {"one": "each image", "pair": "pairs of images", "set": "a whole set"}

KINDS = ["plugins", "probes", "models", "datasets", "executors"]


@click.command("ls")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--load", is_flag=True, help="For plugins: load them, and say which fail.")
@json_option
@click.pass_context
def command(ctx: click.Context, kind: str, load: bool, as_json: bool) -> int:
    """List plugins, probes, models, image sets or executors."""
    from equivengine.cli.output import print_json, print_table

    rows = _plugins(ctx, load) if kind == "plugins" else _provided(ctx, kind)
    if as_json:
        print_json({kind: rows})
    elif kind == "plugins":
        columns = ["name", "state", "package", "provides"] if load else ["name", "module", "package"]
        print_table(columns, [[_cell(row[column]) for column in columns] for row in rows])
        for row in rows:
            if row.get("reason"):
                click.echo(printable(f"{row['name']}: {row['reason']}"))
    else:
        _print_blocks(kind, rows)
    return 0


def _print_blocks(kind: str, rows: list[dict[str, Any]]) -> None:
    """A name and what it is, then its parameters or examples on lines of their own, which can be copied whole."""
    from rich.padding import Padding
    from rich.table import Table

    from equivengine.cli.output import console, literal

    out = console()
    if not rows:
        out.print(literal(f"no {kind} installed; see `equivengine ls plugins --load`"))
    for row in rows:
        takes = f" (for {row['takes']})" if row.get("takes") else ""
        line = literal(row["name"], "bold")
        line.append_text(literal(f"{takes}: {row['summary']}"))
        out.print(line)
        for example in row.get("examples", []):
            out.print(literal(f"    {example}"), soft_wrap=True)
        if row.get("parameters"):
            table = Table(box=None, pad_edge=False, show_header=False)
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for parameter in row["parameters"]:
                default = "required" if parameter["required"] else _shown(parameter["default"])
                table.add_row(literal(f"{parameter['name']}={default}"), literal(parameter["description"]))
            out.print(Padding(table, (0, 0, 0, 4)))
    if kind in ("probes", "executors") and rows:
        option = "--set" if kind == "probes" else "--set-executor"
        text = f"Change a parameter with {option}, for example: {_example(kind, rows)}"
        out.print(literal(text, "dim"), soft_wrap=True)


def _example(kind: str, rows: list[dict[str, Any]]) -> str:
    row = next((row for row in rows if row.get("parameters")), rows[0])
    name, *_ = [parameter["name"] for parameter in row.get("parameters", [])] or ["KEY"]
    if kind == "executors":
        return f"equivengine probe --plugin ldlc --executor {row['name']} --set-executor {name}=VALUE"
    return f"equivengine probe --plugin {row['name']} --set {name}=VALUE"


def _shown(value: Any) -> str:
    return "unset" if value is None else value if isinstance(value, str) else json.dumps(value)


def _plugins(ctx: click.Context, load: bool) -> list[dict[str, Any]]:
    from equivengine.runtime import registry

    blocked = ctx.obj["blocked"]
    records = registry.from_environment(blocked).records if load else registry.installed(blocked)
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
                "provides": record.provides,
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
            rows.append({"name": name, "summary": f"unusable, claimed by several plugins: {owners}", "owner": owners})
            continue
        cls, owner = shelf.find(name)
        row: dict[str, Any] = {"name": name, "summary": cls.summary, "owner": owner.owner}
        if kind == "probes":
            row |= {"version": cls.version, "arity": cls.arity, "takes": TAKES[cls.arity]}
        if kind in ("probes", "executors"):
            row["parameters"] = [_parameter(key, field) for key, field in cls.Params.model_fields.items()]
        else:
            row["examples"] = list(cls.examples)
        rows.append(row)
    return rows


def _parameter(name: str, field: FieldInfo) -> dict[str, Any]:
    from pydantic_core import to_jsonable_python

    required = field.is_required()
    default = None if required else field.get_default(call_default_factory=True, validated_data={})
    return {
        "name": name,
        "default": to_jsonable_python(default, fallback=str),
        "required": required,
        "description": field.description or "",
        "type": _type(field.annotation),
        "limits": [str(limit) for limit in field.metadata],
    }


def _type(annotation: Any) -> str:
    plain = isinstance(annotation, type) and not getattr(annotation, "__args__", None)
    return annotation.__name__ if plain else str(annotation).replace("typing.", "")


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in value.items())
    return str(value)
