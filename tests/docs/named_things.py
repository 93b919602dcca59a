"""What pages name, held against what there is: commands, options, parameters, Python names, paths, extras, variables.

Each function takes a page and yields a sentence for each thing that does not exist, with its line.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import click
from page_text import ROOT, Code, Page

from equivengine.cli.main import cli
from equivengine.runtime.config import RunConfig
from equivengine.runtime.registry import Registry

#: Languages of blocks in which a line may be a command.
SHELL = {"console", "sh", "bash", "indented", "text"}
#: What stands for something that a reader puts in.
PLACEHOLDER = re.compile(r"[A-Z][A-Z_.]*(=[A-Z]+)?|\.\.\.|\[.*\]|\{.*\}")
FOLDERS = ("bench", "csrc", "docs", "equivengine", "examples", "plugins", "recipes", "tests", "tools", ".ci", "paper")
#: Options of other programs that pages speak of.
FOREIGN = {"--nthreads": "dask worker"}

Checker = Callable[[Page], Iterator[str]]


def commands(page: Page, program: str) -> Iterator[tuple[list[str], int]]:
    """Arguments of each call of a program on a page: in code within lines, and in lines of blocks."""
    for code in page.code():
        if code.language is not None and code.language not in SHELL:
            continue
        for number, line in enumerate(entered(code)):
            for words in _calls(line.removeprefix("$ ").strip()):
                if words and words[0] == program:
                    yield words[1:], code.line + number


def entered(code: Code) -> list[str]:
    """Lines of code, without what a console prints."""
    lines = code.text.replace("\\\n", " ").splitlines()
    return [line if line.startswith("$ ") else "" for line in lines] if code.language == "console" else lines


def _calls(line: str) -> Iterator[list[str]]:
    """Commands of a line of shell: parts of pipes and lists, without settings before and redirections after."""
    line = re.sub(r"\{\w+(\|\w+)+\}|\[\w+(\|\w+)+\]", "...", line)
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words = list(lexer)
    except ValueError:  # a quotation mark that is none: prose
        return
    call: list[str] = []
    for word in [*words, ";"]:
        if re.fullmatch(r"[|;&<>]+", word):
            while call and re.match(r"[A-Z_][A-Z0-9_]*=", call[0]):
                call.pop(0)
            if call[:2] == ["python", "-m"] or call[:2] == ["python3", "-m"]:
                call = call[2:]
            yield call
            call = []
        else:
            call.append(word)


# -- the command line -------------------------------------------------------------------------------------------------


@cache
def registry() -> Registry:
    """The plugins that are installed."""
    return Registry.load()


def wrong_commands(page: Page) -> Iterator[str]:
    """Commands, options, choices, plugins, addresses and parameters that equivengine does not know."""
    for words, line in commands(page, "equivengine"):
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
    scripts = [path for folder in ("bench", "tools", "tests") for path in (ROOT / folder).rglob("*.py")]
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


# -- Python -----------------------------------------------------------------------------------------------------------


def wrong_python(page: Page) -> Iterator[str]:
    """Names of equivengine in Python code and between backticks that do not exist."""
    for code in page.code():
        names = _imports(code) if code.language == "python" else []
        names += re.findall(
            r"(?<![\w./@-])(?:eqv|equivengine|equivengine_plugins)(?:\.[A-Za-z_]\w*)+(?![\w/-])", code.text
        )
        names += _members(code)
        for name in dict.fromkeys(names):
            if not name.endswith((".py", ".toml", ".md", ".h5", ".egg", ".commands")) and not exists(name):
                yield f"{page.name}:{code.line}: there is no {name}"


def _imports(code: Code) -> list[str]:
    try:
        tree = ast.parse(code.text)
    except SyntaxError:  # a part of a program; what it names is found by its text
        return []
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return [
        f"{node.module}.{alias.name}"
        for node in found
        for alias in node.names
        if node.module.split(".")[0] == "equivengine"
    ]


def _members(code: Code) -> list[str]:
    """`Probe.findings`: a public class and a member of it, between backticks."""
    found = re.match(r"([A-Z]\w+)\.([a-z]\w*)", code.text) if code.language is None else None
    owner = next((path for path in _classes() if path.endswith(f".{found[1]}")), None) if found else None
    return [f"{owner}.{found[2]}"] if found and owner else []


@cache
def _classes() -> tuple[str, ...]:
    modules = ("equivengine", "equivengine.linalg", "equivengine.matching", "equivengine.store", "equivengine.testing")
    found = [(module, name) for module in modules for name in importlib.import_module(module).__all__]
    return tuple(f"{m}.{name}" for m, name in found if inspect.isclass(getattr(importlib.import_module(m), name)))


def exists(name: str) -> bool:
    """Whether a dotted name leads to a module, or to something in one; fields of a class count."""
    parts = name.split(".")
    parts[0] = "equivengine" if parts[0] == "eqv" else parts[0]
    found: Any = importlib.import_module(parts[0])
    for place, part in enumerate(parts[1:], 2):
        if hasattr(found, part):
            found = getattr(found, part)
        elif inspect.isclass(found):
            return part in {field for cls in found.__mro__ for field in inspect.get_annotations(cls)} or _is_set(
                found, part
            )
        elif inspect.ismodule(found):
            try:
                found = importlib.import_module(".".join(parts[:place]))
            except ModuleNotFoundError:
                return False
        else:
            return False
    return True


def _is_set(cls: type, name: str) -> bool:
    """Whether `__init__` of a class sets an attribute."""
    return f"self.{name}" in inspect.getsource(cls)


# -- files, extras, variables, targets --------------------------------------------------------------------------------


def wrong_paths(page: Page) -> Iterator[str]:
    """Files and folders of the repository, between backticks or in commands, that are not there."""
    start = "|".join(map(re.escape, FOLDERS))
    for code in page.code():
        if code.language is not None and code.language not in SHELL:
            continue
        for path in re.findall(rf"(?<![\w./-])(?:{start})/[\w./*{{}},-]*", "\n".join(entered(code))):
            if code.language is None or re.match(r"[\w./-]+\.\w+$", path):
                yield from (
                    f"{page.name}:{code.line}: there is no {one}" for one in _alternatives(path) if not _is_there(one)
                )


def _alternatives(path: str) -> list[str]:
    found = re.search(r"\{([^}]*)\}", path)
    choices = found[1].split(",") if found else []
    return [path.replace(found[0], choice) for choice in choices] if found else [path.rstrip(".,")]


def _is_there(path: str) -> bool:
    return bool(list(ROOT.glob(path.rstrip("/")))) if "*" in path else (ROOT / path).exists()


def wrong_extras(page: Page) -> Iterator[str]:
    """Extras that pyproject.toml does not define."""
    for name in named_extras(page):
        if name not in extras():
            yield f"{page.name}: there is no extra {name!r}"


def named_extras(page: Page) -> list[str]:
    """Extras in brackets after the package's name, or behind the word."""
    named = re.findall(r"equivengine\[([\w,]+)\]", page.text)
    for listed in re.findall(r"\b[Ee]xtras?:? ((?:`\w+`(?: \([^)]*\))?(?:,\s| and\s)?)+)", page.text):
        named += re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", listed))
    return [name for group in named for name in group.split(",")]


@cache
def extras() -> frozenset[str]:
    """Extras of the distribution."""
    return frozenset(
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    )


@cache
def names_in_code() -> frozenset[str]:
    """Names that begin with EQUIVENGINE_ in the sources: variables of the environment, and of plugins' modules."""
    files = [path for folder in ("equivengine", "plugins", "csrc") for path in (ROOT / folder).rglob("*.*")]
    sources = [path for path in files if path.suffix in (".py", ".cpp", ".h", ".cu")]
    texts = (path.read_text(encoding="utf-8") for path in (*sources, ROOT / "setup.py", ROOT / "Makefile"))
    return frozenset(name for text in texts for name in re.findall(r"\bEQUIVENGINE_[A-Z_]+\b", text))


def variables_read() -> set[str]:
    """Variables of the environment that the program and its installation read."""
    folders = [
        (ROOT / folder).rglob(f"*.{kind}")
        for folder, kind in (("equivengine", "py"), ("plugins", "py"), ("csrc", "cpp"))
    ]
    files = [*(path for folder in folders for path in folder), ROOT / "setup.py"]
    read = (
        r"(?:environ(?:\.get|\.pop)?[\[(]|getenv\(|environment\(|envvar=)\s*(?:\"(EQUIVENGINE_[A-Z_]+)\"|([A-Z_]+)\b)"
    )
    found = set()
    for path in files:
        text = path.read_text(encoding="utf-8")
        constants = dict(re.findall(r"^([A-Z_]+) = \"(EQUIVENGINE_[A-Z_]+)\"$", text, re.MULTILINE))
        for literal, constant in re.findall(read, text):
            found |= {literal or constants.get(constant, "")} - {""}
    return found


def wrong_variables(page: Page) -> Iterator[str]:
    """Variables EQUIVENGINE_... that nothing in the sources knows."""
    for name in dict.fromkeys(re.findall(r"\bEQUIVENGINE_[A-Z_]+\b", page.text)):
        if name not in names_in_code():
            yield f"{page.name}: nothing reads {name}"


def wrong_targets(page: Page) -> Iterator[str]:
    """Targets that the Makefile does not have."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words, line in commands(page, "make"):
        for word in words:
            if re.fullmatch(r"[a-z][a-z-]*", word.rstrip(",")) and word.rstrip(",") not in targets:
                yield f"{page.name}:{line}: the Makefile has no target {word!r}"


def wrong_scripts(page: Page) -> Iterator[str]:
    """Scripts of the repository that are called with options which they do not have."""
    for program in ("python", "python3"):
        for words, line in commands(page, program):
            script = ROOT / words[0] if words else ROOT
            if script.suffix != ".py" or not words[0].startswith(FOLDERS):
                continue
            source = script.read_text(encoding="utf-8") if script.is_file() else ""
            for word in words[1:]:
                name = word.partition("=")[0]
                if name.startswith("--") and f'"{name}"' not in source:
                    yield f"{page.name}:{line}: {words[0]} has no option {name}"


CHECKERS: tuple[Checker, ...] = (
    wrong_commands,
    wrong_options,
    wrong_parameters,
    wrong_settings,
    wrong_python,
    wrong_paths,
    wrong_extras,
    wrong_variables,
    wrong_targets,
    wrong_scripts,
)
