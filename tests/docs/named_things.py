"""What pages name, held against what there is: Python names, files, extras, variables; and all that they enter.

Each function takes a page and yields a sentence for each thing that does not exist, with its line.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from named_calls import SHELL, entered
from named_commands import (
    wrong_commands,
    wrong_options,
    wrong_parameters,
    wrong_scripts,
    wrong_settings,
    wrong_targets,
)
from page_text import ROOT, Code, Page

FOLDERS = ("bench", "csrc", "docs", "equivengine", "examples", "plugins", "recipes", "tests", "tools", ".ci", "paper")

Checker = Callable[[Page], Iterator[str]]


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


def wrong_paths_of_sources() -> Iterator[str]:
    """The same in help, messages and comments of the sources, and in the Makefile."""
    start = "|".join(map(re.escape, FOLDERS))
    files = [
        path for folder in ("equivengine", "plugins", "csrc", "bench", "tools") for path in (ROOT / folder).rglob("*")
    ]
    sources = [path for path in files if path.suffix in (".py", ".cpp", ".cu", ".h", ".inc", ".sh")]
    for source in (*sources, ROOT / "setup.py", ROOT / "Makefile", ROOT / ".ci" / "run"):
        text = source.read_text(encoding="utf-8")
        for path in re.findall(rf"(?<![\w./-])(?:{start})/[\w./-]*\.[a-z]\w*\b", text):
            if not re.search("[A-Z]{2}", path) and not (ROOT / path).exists():
                yield f"{source.relative_to(ROOT)}: there is no {path}"


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
    found = {name for text in texts for name in re.findall(r"\bEQUIVENGINE_[A-Z_]+\b", text)}
    for path in (ROOT / "tests").rglob("*.py"):  # what they read themselves, not what they try
        found |= set(re.findall(r"environ\.get\(\"(EQUIVENGINE_TEST_[A-Z_]+)\"", path.read_text(encoding="utf-8")))
    return frozenset(found)


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
