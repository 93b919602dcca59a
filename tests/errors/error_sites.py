"""Every place in the sources where an error for a user is made, found by reading the code.

A place is named by its module, its function and the first words that the message holds for certain, so that its name
survives a move by some lines; where two places share all three, the later ones carry a number.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Folders of sources, and what their modules are imported from.
SOURCES = {ROOT / "equivengine": ROOT, ROOT / "plugins" / "equivengine_plugins": ROOT / "plugins"}
#: The class itself: what it makes again on the other side of a process boundary was made elsewhere.
EXCLUDED = {ROOT / "equivengine" / "errors.py"}
#: Bases of what a user may see. `Refused` becomes a StoreError that names the file; click prints its own.
BASES = {"EngineError", "Refused", "UsageError"}
_WORDS = 60

#: First line, first column, last line and last column of a call, as the interpreter knows them.
Span = tuple[int, int, int, int]


@dataclass(frozen=True)
class Site:
    """One place where an error is made.

    Attributes:
        name: ``module:function: first words``, unique.
        module: Dotted name of the module.
        error: Class of the error, as the code spells it.
        path: The file.
        line: Where it starts.
        span: All of the call.
        foreign: Whether ``got`` holds what another library or the system said, which differs between versions.
    """

    name: str
    module: str
    error: str
    path: Path
    line: int
    span: Span
    foreign: bool


@functools.cache
def sites() -> dict[str, Site]:
    """All places, by name, in the order of files and lines."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in _files()}
    errors = _descendants(trees)
    found: dict[str, Site] = {}
    for path, tree in trees.items():
        if path in EXCLUDED:
            continue
        module = _module(path)
        for function, kinds, call in _calls(tree, errors):
            stem = f"{module}:{function}: {_first_words(call)}"
            name, number = stem, 1
            while name in found:
                number += 1
                name = f"{stem} ({number})"
            found[name] = Site(name, module, kinds, path, call.lineno, _span(call), _is_foreign(call))
    return found


@functools.cache
def by_place() -> dict[str, dict[Span, Site]]:
    """All places, by file and span."""
    found: dict[str, dict[Span, Site]] = {}
    for site in sites().values():
        found.setdefault(str(site.path), {})[site.span] = site
    return found


def _files() -> Iterator[Path]:
    for folder in SOURCES:
        yield from sorted(folder.rglob("*.py"))


def _module(path: Path) -> str:
    for folder, base in SOURCES.items():
        if path.is_relative_to(folder):
            parts = list(path.relative_to(base).with_suffix("").parts)
            return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    raise AssertionError(path)


def _descendants(trees: dict[Path, ast.Module]) -> set[str]:
    """Names of all classes that descend from the bases."""
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    known = set(BASES)
    while True:
        found = {node.name for node in classes if known & {_last_name(base) for base in node.bases}}
        if found <= known:
            return known
        known |= found


def _calls(tree: ast.Module, errors: set[str]) -> Iterator[tuple[str, str, ast.Call]]:
    """Function, class and call of each error that is made in a module."""

    def visit(node: ast.AST, inside: tuple[str, ...], variables: frozenset[str]) -> Iterator[tuple[str, str, ast.Call]]:
        if isinstance(node, ast.ClassDef):
            inside = (*inside, node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = (*inside, node.name)
            variables = variables | {
                a.arg for a in [*node.args.args, *node.args.kwonlyargs] if a.annotation and _is_class_of(a.annotation)
            }
        elif isinstance(node, ast.Call) and _last_name(node.func) in errors | variables:
            yield ".".join(inside) or "<module>", _last_name(node.func), node
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside, variables)

    def _is_class_of(annotation: ast.expr) -> bool:
        """Whether it is ``type[SomeError]``."""
        return (
            isinstance(annotation, ast.Subscript)
            and _last_name(annotation.value) == "type"
            and _last_name(annotation.slice) in errors
        )

    yield from visit(tree, (), frozenset())


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _first_words(call: ast.Call) -> str:
    """The message as far as the code spells it; what is put in shows as ``…``."""
    first = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "what"), None)
    text = "" if first is None else _literal(first)
    return " ".join(text.split())[:_WORDS].rstrip()


def _literal(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(value) for value in node.values)
    if isinstance(node, ast.BinOp):
        return _literal(node.left) + _literal(node.right)
    return "…"


def _is_foreign(call: ast.Call) -> bool:
    """Whether a caught error, or the words of one, go into ``got``."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "got"]
    names = {node.id for value in given for node in ast.walk(value) if isinstance(node, ast.Name)}
    return bool(names & {"error", "reason", "got", "problem", "one_line", "first_line"})


def _span(call: ast.Call) -> Span:
    """Span of a call, with columns in bytes as in code objects."""
    assert call.end_lineno is not None
    assert call.end_col_offset is not None
    return (call.lineno, call.col_offset, call.end_lineno, call.end_col_offset)
