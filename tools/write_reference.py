"""Writes the pages of docs/reference/ that list commands and keys: `python tools/write_reference.py [--check]`.

Commands come from click, parameters from the plugins that are shipped, keys of run files from the class that checks
them. A test holds the pages to what this would write.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from equivengine.cli import main as program

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
WRITTEN = "<!-- Written by `python tools/write_reference.py`. -->\n"
DEFAULT = re.compile(r"\s*\[default: (.*)\]$")
#: What one unit of a probe takes, by its arity.
UNITS = {"one": "one image", "pair": "an original and a target", "set": "a whole set"}
#: Bounds of numbers, as brackets and in words; the last of each is that of a length.
LOWER = {"ge": ("[", " >="), "gt": ("(", " >"), "min_length": ("[", ", of length >=")}
UPPER = {"le": ("]", " <="), "lt": (")", " <"), "max_length": ("]", ", of length <=")}


def cell(text: object) -> str:
    """Text within a table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def table(head: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    for line in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(map(cell, line))} |"


# -- commands ---------------------------------------------------------------------------------------------------------


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[click.Context, click.Command]]:
    """All commands that equivengine brings, those of a group after it."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        module = getattr(command.callback, "__module__", "") if command is not None else ""
        if command is None or not module.startswith("equivengine."):
            continue
        inner = click.Context(command, info_name=name, parent=context)
        yield inner, command
        if isinstance(command, click.Group):
            yield from commands(command, inner)


def prose(text: str) -> Iterator[str]:
    """Help of a command: paragraphs are filled, and those that click is told to leave are kept as they are."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        kept = paragraph.startswith("\b\n")
        lines = paragraph.removeprefix("\b\n").splitlines()
        if not kept:
            yield from (" ".join(line.strip() for line in lines), "")
            continue
        if lines[0].endswith(":") and all(line.startswith(" ") for line in lines[1:]):
            yield from (lines.pop(0), "")
        indent = min(len(line) - len(line.lstrip()) for line in lines)
        yield from ("```text", *(line[indent:] for line in lines), "```", "")


def option_row(option: click.Option, context: click.Context) -> list[str]:
    """A row of the table of options: names, what it does, default, environment variable."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if not (option.is_flag or option.count):
        names += f" {values(option, context)}"
    text = option.help or ""
    default = DEFAULT.search(text)
    given = option.to_info_dict()["default"]
    if option.required:
        shown = "required"
    elif default:
        shown = default[1]
    else:
        shown = "" if option.is_flag or option.count or option.multiple or given in (None, ()) else f"`{given}`"
    return [names, DEFAULT.sub("", text), shown, f"`{option.envvar}`" if option.envvar else ""]


def values(parameter: click.Parameter, context: click.Context) -> str:
    """What an option takes."""
    kind = parameter.type
    if isinstance(kind, click.Choice):
        return " or ".join(f"`{choice}`" for choice in kind.choices)
    metavar = parameter.make_metavar(context).replace(" RANGE", "")
    if not isinstance(kind, click.IntRange | click.FloatRange):
        return metavar
    bounds = [f"{sign} {bound}" for sign, bound in ((">=", kind.min), ("<=", kind.max)) if bound is not None]
    return f"{metavar} ({', '.join(bounds)})"


def command_lines(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    """One command."""
    yield from (f"{'#' * level} {context.command_path}", "")
    yield from ("```text", command.get_usage(context).removeprefix("Usage: "), "```", "")
    yield from prose(command.help or "")
    options = [
        parameter for parameter in command.params if isinstance(parameter, click.Option) and not parameter.hidden
    ]
    if options:
        head = ["option", "", "default", "environment"]
        rows = [option_row(option, context) for option in options]
        width = max(2 + place for place in (0, 1, 2) if place == 0 or any(row[1 + place] for row in rows))
        yield from table(head[:width], (row[:width] for row in rows))
        yield ""
    if isinstance(command, click.Group) and command.epilog:
        yield from (" ".join(command.epilog.replace("\b", "").split()), "")


def cli_page() -> str:
    """docs/reference/cli.md."""
    context = click.Context(program.cli, info_name="equivengine")
    lines = ["# Command line", "", WRITTEN]
    lines += [
        "What `equivengine COMMAND --help` prints. Results go to stdout, progress and errors to stderr. Where an",
        "option names an environment variable, that is its default; all variables are listed in",
        "[Installing](../install.md#environment-variables).",
        "",
    ]
    lines += command_lines(program.cli, context, 2)
    for inner, command in commands(program.cli, context):
        lines += command_lines(command, inner, 2 + inner.command_path.count(" ") - 1)
    lines += [
        "## Completion",
        "",
        '`eval "$(_EQUIVENGINE_COMPLETE=bash_source equivengine)"` completes what is typed in bash, once it stands in',
        "`~/.bashrc`: commands, options, choices. `zsh_source` and `fish_source` are for these shells.",
    ]
    return "\n".join(lines).rstrip() + "\n"


# -- parameters -------------------------------------------------------------------------------------------------------


def listed(kind: str) -> list[dict[str, Any]]:
    """What `equivengine ls KIND --json` says of plugins that are shipped."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = program.run(["ls", kind, "--json"])
    if code:
        sys.exit(f"`equivengine ls {kind}` exited with {code}")
    return [row for row in json.loads(out.getvalue())[kind] if "(equivengine_plugins." in row["owner"]]


def parameter_row(parameter: dict[str, Any]) -> list[str]:
    """A row of the table of parameters."""
    default = "unset" if parameter["default"] is None else f"`{json.dumps(parameter['default'])}`"
    kind = type_of(parameter["type"]) + range_of(parameter["limits"])
    return [f"`{parameter['name']}`", parameter["description"], "required" if parameter["required"] else default, kind]


def type_of(annotation: str) -> str:
    """A type in words; that a parameter may be unset is seen from its default."""
    plain = re.sub(r"^Optional\[(.*)\]$|^(.*) \| None$", r"\1\2", annotation)
    plain = re.sub(r"Annotated\[(\w+)\]", r"\1", plain)
    plain = re.sub(r"^dict\[str, (.*)\]$", lambda found: "table" + f" of {found[1]}".replace(" of Any", ""), plain)
    plain = re.sub(r"list\[Any\]", "lists", plain)
    plain = re.sub(r"^(?:tuple|list)\[(.*?)(?:, \.\.\.)?\]$", r"list of \1", plain)
    return re.sub(r"Literal\[(.*?)\]", lambda found: found[1].replace("'", "`").replace(", ", " or "), plain)


def range_of(limits: list[str]) -> str:
    """`Ge(ge=0)` and `Lt(lt=1)` as ` in [0, 1)`; one alone as ` >= 0`."""
    found = dict(match.groups() for text in limits if (match := re.fullmatch(r"\w+\((\w+)=(.*)\)", text)))
    low = next(((LOWER[key], value) for key, value in found.items() if key in LOWER), None)
    high = next(((UPPER[key], value) for key, value in found.items() if key in UPPER), None)
    if low and high and "min_length" not in found:
        return f" in {low[0][0]}{low[1]}, {high[1]}{high[0][0]}"
    return "".join(f"{words} {value}" for (_, words), value in filter(None, (low, high)))


def parameters_page() -> str:
    """docs/reference/parameters.md."""
    lines = ["# Parameters", "", WRITTEN]
    lines += [
        "What `--set KEY=VALUE` takes, and `set` in a run file, for each probe that is shipped. Values are JSON where",
        "they can be, text otherwise. `equivengine ls probes` prints the same for all probes that are installed.",
        "",
    ]
    for row in listed("probes"):
        lines += [
            f"## {row['name']}",
            "",
            f"{sentence(row['summary'])} One unit takes {UNITS[row['arity']]}. Version {row['version']}.",
            "",
        ]
        lines += parameter_table(row)
    with_parameters = [row for row in listed("executors") if row.get("parameters")]
    if with_parameters:
        lines += ["## Executors", "", "What `--set-executor KEY=VALUE` takes.", ""]
    for row in with_parameters:
        lines += [f"### {row['name']}", "", sentence(row["summary"]), "", *parameter_table(row)]
    return "\n".join(lines).rstrip() + "\n"


def sentence(summary: str) -> str:
    """A summary as a sentence."""
    return f"{summary[:1].upper()}{summary[1:]}."


def parameter_table(row: dict[str, Any]) -> Iterator[str]:
    """Lines about the parameters of one plugin."""
    yield from table(["key", "", "default", "type"], (parameter_row(parameter) for parameter in row["parameters"]))
    yield ""


# -- run files --------------------------------------------------------------------------------------------------------


def run_file_page() -> str:
    """docs/reference/run_file.md."""
    from equivengine.runtime.config import RunConfig

    lines = ["# Keys of run files", "", WRITTEN]
    lines += [
        "What a TOML file for `equivengine run` may hold; [Run files](../sweeps.md) says how to write one. An unknown",
        "key is refused. Options of [equivengine run](cli.md#equivengine-run) stand in place of what the file says.",
        "",
        *entries(RunConfig),
    ]
    for name, field in RunConfig.model_fields.items():
        if (part := model_of(field)) is not None:
            head = f"\\[{name}.URI\\]" if by_name(field) else f"\\[\\[{name}\\]\\]"
            lines += [f"## {head}", "", flat(inspect.getdoc(part) or ""), "", *entries(part)]
    return "\n".join(lines).rstrip() + "\n"


def entries(model: type[BaseModel]) -> Iterator[str]:
    """Lines about the keys of a table."""
    rows = (parameter_row(entry(name, field)) for name, field in model.model_fields.items())
    yield from table(["key", "", "default", "type"], rows)
    yield ""


def entry(name: str, field: FieldInfo) -> dict[str, Any]:
    """A key of a table, as `equivengine ls` describes parameters."""
    part, unset = model_of(field), field.is_required() or model_of(field)
    tables = f"tables `[{name}.URI]`" if by_name(field) else f"tables `[[{name}]]`"
    annotation = field.annotation
    plain = isinstance(annotation, type) and not getattr(annotation, "__args__", None)
    text = annotation.__name__ if plain else re.sub(r"typing\.|, FieldInfo\(.*?\]\)|, Ge\(.*?\)", "", str(annotation))
    default = None if unset else field.get_default(call_default_factory=True, validated_data={})
    return {
        "name": name,
        "description": field.description or "",
        "required": field.is_required(),
        "default": to_jsonable_python(default),
        "type": tables if part else text,
        "limits": [] if part else [str(limit) for limit in field.metadata],
    }


def by_name(field: FieldInfo) -> bool:
    """Whether its tables have names, in place of an order."""
    return get_origin(field.annotation) is dict


def model_of(field: FieldInfo) -> type[BaseModel] | None:
    """The table that a list of tables is made of."""
    parts = [part for part in get_args(field.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
    return parts[0] if parts else None


def flat(text: str) -> str:
    """A docstring of one paragraph on one line, with Markdown's backticks."""
    return " ".join(text.replace("``", "`").split())


PAGES = {"cli.md": cli_page, "parameters.md": parameters_page, "run_file.md": run_file_page}


def main() -> None:
    """Write the pages, or compare them with what would be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is not up to date")
    check = parser.parse_args().check
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if check and path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path} is not up to date: python tools/write_reference.py")
        if not check:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
