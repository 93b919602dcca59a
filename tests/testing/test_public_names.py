"""What plugins may rely on is what it was, is documented, and is all that the shipped plugins use."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import public_names
import pytest

import equivengine as eqv

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
SHIPPED = sorted((ROOT / "plugins" / "equivengine_plugins").rglob("*.py"))

ADVICE = (
    "what plugins rely on has changed. Additions: raise the minor number of API_VERSION. Anything else: deprecate it "
    "first (docs/plugins.md), and raise the major number. Then: python tests/testing/public_names.py --write"
)


def test_public_names_and_signatures_are_what_they_were():
    kept = public_names.KEPT.read_text(encoding="utf-8").splitlines()
    found = public_names.lines()
    gone = [line for line in kept if line not in found]
    new = [line for line in found if line not in kept]
    assert (gone, new) == ([], []), ADVICE


def test_no_public_name_lacks_a_docstring():
    for name in eqv.__all__:
        value = getattr(eqv, name)
        if callable(value) and name != "hookimpl":
            assert value.__doc__, name
    for module in public_names.SUBMODULES:
        found = importlib.import_module(f"equivengine.{module}")
        assert found.__doc__
        for name in public_names.public_names(module):
            value = getattr(found, name)
            assert value.__doc__ or not (inspect.isclass(value) or inspect.isroutine(value)), f"{module}.{name}"


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Module and name of everything that a file takes from equivengine, `eqv.NAME` included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and re.match(r"equivengine(\.|$)", node.module or ""):
            yield from ((str(node.module), alias.name) for alias in node.names)
        if isinstance(node, ast.Import):
            for alias in node.names:
                if re.match(r"equivengine(\.|$)", alias.name):
                    yield alias.name, None
                    called.add(alias.asname or alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts = ast.unparse(node).split(".")
            if parts[0] in called and len(parts) == 2:
                yield "equivengine", parts[1]
            if parts[0] in called and len(parts) == 3 and parts[1] in public_names.SUBMODULES:
                yield f"equivengine.{parts[1]}", parts[2]


def test_shipped_plugins_use_public_names_only():
    used = 0
    for path in SHIPPED:
        for module, name in imports(path):
            used += 1
            if module == "equivengine":
                assert name is None or name in (*eqv.__all__, *public_names.SUBMODULES), f"{path}: {name}"
                continue
            submodule = module.removeprefix("equivengine.")
            assert submodule in public_names.SUBMODULES, f"{path}: {module}"
            assert name is None or name in public_names.public_names(submodule), f"{path}: {module}.{name}"
    assert used > 500


@pytest.mark.parametrize("source", ["import equivengine.store", "from equivengine.store import run", "eqv.secret"])
def test_that_test_finds_private_names(tmp_path, source):
    path = tmp_path / "plugin.py"
    path.write_text(f"import equivengine as eqv\n{source}\n")
    found = [(module, name) for module, name in imports(path) if module != "equivengine" or name is not None]
    (module, name) = found[-1]
    assert module.removeprefix("equivengine.") not in public_names.SUBMODULES
    assert name not in eqv.__all__


def test_the_page_says_what_plugins_may_rely_on():
    (section,) = re.findall(r"^## What a plugin may rely on\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    for module in public_names.SUBMODULES:
        assert f"`equivengine.{module}`" in section
    for words in ("`equivengine.__all__`", f"`API_VERSION`, {eqv.API_VERSION}", "DeprecationWarning", "major", "minor"):
        assert words in section


def test_every_requirement_is_on_the_page():
    for requirements in public_names.REQUIREMENTS.values():
        for requirement in requirements:
            assert f"`{requirement.name}`" in PAGE, requirement.name
