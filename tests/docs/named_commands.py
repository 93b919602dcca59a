"""What pages enter, held against what there is: commands, options, parameters, plugins, targets, scripts.

Each function takes a page and yields a sentence for each thing that does not exist, with its line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache

import click
from named_calls import PLACEHOLDER, calls
from page_text import ROOT, Page

from equivengine.cli.main import cli
from equivengine.runtime.config import RunConfig
from equivengine.runtime.registry import Registry

#: Options of other programs that pages speak of.
FOREIGN = {"--nthreads": "dask worker", "--requeue": "sbatch"}
#: Folders that hold scripts.
SCRIPTS = ("bench", "tools", "tests")


@cache
def registry() -> Registry:
    """The plugins that are installed."""
    return Registry.load()


def wrong_commands(page: Page) -> Iterator[str]:
    """Commands, options, choices, plugins, addresses and parameters that equivengine does not know."""
    for words, line in calls(page, "equivengine"):
        yield from (f"{page.name}:{line}: {what}" for what in _wrong_call(cli, click.Context(cli), words, page))


def _wrong_call(command: click.Command, context: click.Context, words: list[str], page: Page) -> Iterator[str]:
    options = {
        name: option for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)
    }
    given: dict[str, list[str]] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if word.startswith("-") and word != "-":
            option = options.get(name)
            if not isinstance(option, click.Option):
                yield f"`{context.command_path or 'equivengine'}` has no option {name}"
                return
            if not (option.is_flag or option.count):
                value = value if equals else next(rest, "VALUE")
                given.setdefault(option.name or "", []).append(value)
                yield from _wrong_choice(option, value, name)
        elif PLACEHOLDER.fullmatch(word):
            if isinstance(command, click.Group):
                return
        elif isinstance(command, click.Group):
            inner = command.get_command(context, word)
            if inner is None:
                yield f"equivengine has no command {word!r}"
                return
            yield from _wrong_call(inner, click.Context(inner, info_name=word, parent=context), list(rest), page)
        else:
            arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
            yield from (wrong for argument in arguments for wrong in _wrong_choice(argument, word, command.name or ""))
    yield from _wrong_plugins(command, given, words, page)


def _wrong_choice(parameter: click.Parameter, value: str, name: str) -> Iterator[str]:
    if isinstance(parameter.type, click.Choice) and not PLACEHOLDER.fullmatch(value):
        known = [str(choice) for choice in parameter.type.choices]
        yield from (f"{name} does not take {one!r}" for one in value.split("|") if one not in known)


def _wrong_plugins(command: click.Command, given: dict[str, list[str]], words: list[str], page: Page) -> Iterator[str]:
    """Names of probes, executors, models and sets that are neither shipped nor written on the page."""
    shelves = {"probe": registry().probes, "executor": registry().executors}
    shelves |= dict.fromkeys(("model", "models"), registry().backends)
    shelves |= dict.fromkeys(("images", "targets"), registry().datasets)
    own = _of_the_page(page)
    for option, values in given.items():
        for value in values if option in shelves else []:
            name = re.split(r"[:?]", value)[0]
            if not PLACEHOLDER.fullmatch(value) and name not in {*shelves[option].names(), *own}:
                yield f"no plugin provides {option} {name!r}"
    for kind, option in (("probe", "settings"), ("executor", "executor_settings")):
        names = [name for name in given.get(kind, []) if name in shelves[kind].names()]
        keys = [text.partition("=")[0] for text in given.get(option, []) if not PLACEHOLDER.fullmatch(text)]
        for name in names:
            known = shelves[kind].find(name)[0].Params.model_fields
            yield from (f"{kind} {name!r} has no parameter {key!r}" for key in keys if key not in known)
    if command.name == "check" and words and not PLACEHOLDER.fullmatch(words[0]):
        installed = {record.name for record in registry().records}
        yield from [f"no plugin is called {words[0]!r}"] if words[0] not in {*installed, *own} else []


def _of_the_page(page: Page) -> set[str]:
    """Names of plugins that a page writes or begins itself, or that the example brings."""
    text = page.text + "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("examples/*/pyproject.toml"))
    written = re.findall(r"^    name = \"(\w+)\"$", text, re.MULTILINE)
    return {
        *written,
        *re.findall(r"plugin new (\w+)", text),
        *re.findall(r"^(\w+) = \"\w+(?:\.\w+)+\"$", text, re.MULTILINE),
    }


def wrong_options(page: Page) -> Iterator[str]:
    """Options between backticks that no command and no script has."""
    known = {*_options(), *_script_options(), *FOREIGN}
    for code in page.code():
        found = re.match(r"--?[a-z][a-z-]*", code.text) if code.language is None else None
        if found and found[0] not in known:
            yield f"{page.name}:{code.line}: there is no option {found[0]}"


@cache
def _options() -> frozenset[str]:
    return frozenset(_all_options(cli, click.Context(cli)))


def _all_options(group: click.Group, context: click.Context) -> set[str]:
    found = set()
    for command in (group, *(group.get_command(context, name) for name in group.list_commands(context))):
        if command is None:
            continue
        found |= {
            name for parameter in command.get_params(context) for name in (*parameter.opts, *parameter.secondary_opts)
        }
        if isinstance(command, click.Group) and command is not group:
            found |= _all_options(command, click.Context(command, parent=context))
    return found


@cache
def _script_options() -> set[str]:
    scripts = [path for folder in SCRIPTS for path in (ROOT / folder).rglob("*.py")]
    texts = (path.read_text(encoding="utf-8") for path in scripts)
    return {name for text in texts for name in re.findall(r"add_argument\(\s*\"(--[a-z-]+)\"", text)}


def wrong_parameters(page: Page) -> Iterator[str]:
    """Parameters that run files on a page set, and that their probes do not have; also unknown probes."""
    for code in page.code():
        if code.language != "toml" or "[[probes]]" not in code.text:
            continue
        file = tomllib.loads(code.text)
        yield from (
            f"{page.name}:{code.line}: run files have no key {key!r}"
            for key in file
            if key not in RunConfig.model_fields
        )
        for probe in file["probes"]:
            if probe["name"] not in registry().probes.names():
                yield f"{page.name}:{code.line}: no plugin provides probe {probe['name']!r}"
                continue
            known = registry().probes.find(probe["name"])[0].Params.model_fields
            wrong = [key for key in probe.get("set", {}) if key not in known]
            yield from (f"{page.name}:{code.line}: probe {probe['name']!r} has no parameter {key!r}" for key in wrong)


def wrong_settings(page: Page) -> Iterator[str]:
    """`--set key=value` alone, where no probe that is shipped or written on the page has such a parameter."""
    known = {key for name in registry().probes.names() for key in registry().probes.find(name)[0].Params.model_fields}
    known |= set(re.findall(r"^    (\w+): \w+ = Field\(", page.text, re.MULTILINE))
    for code in page.code():
        for key in re.findall(r"--set (\w+)=", code.text) if code.language is None else []:
            if key not in known and key.lower() != "key":
                yield f"{page.name}:{code.line}: no probe has a parameter {key!r}"


def wrong_targets(page: Page) -> Iterator[str]:
    """Targets that the Makefile does not have."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words, line in calls(page, "make"):
        for word in words:
            if re.fullmatch(r"[a-z][a-z-]*", word.rstrip(",")) and word.rstrip(",") not in targets:
                yield f"{page.name}:{line}: the Makefile has no target {word!r}"


def wrong_scripts(page: Page) -> Iterator[str]:
    """Scripts of the repository that are called with options which they do not have."""
    for program in ("python", "python3"):
        for words, line in calls(page, program):
            script = ROOT / words[0] if words else ROOT
            if script.suffix != ".py" or not words[0].startswith(SCRIPTS):
                continue
            source = script.read_text(encoding="utf-8") if script.is_file() else ""
            for word in words[1:]:
                name = word.partition("=")[0]
                if name.startswith("--") and f'"{name}"' not in source:
                    yield f"{page.name}:{line}: {words[0]} has no option {name}"
