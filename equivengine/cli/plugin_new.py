"""Writes the distribution of a new plugin, whole or not at all."""

from __future__ import annotations

import contextlib
import importlib.util
import keyword
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from string import Template

import equivengine
from equivengine.errors import UsageError

#: Characters of a name, at most.
MAX_NAME = 40

#: What a kind is called in sentences, and how its plugin is tried.
_DESCRIPTIONS = {
    "backend": (
        "Models for equivengine: the backend `{name}`.",
        "equivengine probe --plugin ldlc --model {name} --images samples",
    ),
    "probe": ("A measurement for equivengine: the probe `{name}`.", "equivengine probe --plugin {name}"),
    "dataset": ("Images for equivengine: the image set `{name}`.", "equivengine probe --plugin ldlc --images {name}:5"),
}


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        folder: The new directory.
        files: Its files, relative to it.
    """

    folder: Path
    files: list[str]


def write_plugin(name: str, kind: str, out: str | None = None) -> Written:
    """Write a distribution that can be installed and passes ``plugin check`` as it is.

    Args:
        name: Name of the plugin and of what it provides.
        kind: ``"backend"``, ``"probe"`` or ``"dataset"``.
        out: Directory to write, which must not exist; ``equivengine-NAME`` when None.

    Raises:
        UsageError: If the name cannot be used or is taken, or the directory exists or cannot be written. Nothing is
            written then.
    """
    module = f"equivengine_{name}"
    project = f"equivengine-{name.replace('_', '-')}"
    _check_name(name)
    _check_free(name, module, project)
    folder = Path(out if out is not None else project)
    _check_folder(folder)
    description, usage = (text.format(name=name) for text in _DESCRIPTIONS[kind])
    words = {
        "name": name,
        "module": module,
        "distribution": project,
        "cls": "".join(part.capitalize() for part in name.split("_")),
        "description": description,
        "usage": usage,
        "api": str(equivengine.API_VERSION),
        "engine": equivengine.__version__,
    }
    sources = {
        "pyproject.toml": "common/pyproject.toml.in",
        "README.md": "common/README.md.in",
        f"src/{module}/__init__.py": f"{kind}/init.py.in",
        f"tests/test_{name}.py": f"{kind}/test.py.in",
    }
    templates = files("equivengine.cli") / "templates" / "plugin"
    texts = {
        path: Template((templates / source).read_text(encoding="utf-8")).substitute(words)
        for path, source in sources.items()
    }
    texts[f"src/{module}/py.typed"] = ""
    _write(folder, texts)
    return Written(folder, sorted(texts))


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > MAX_NAME:
        raise UsageError(
            "the name of a plugin is not usable",
            expected=f"lower-case letters, digits, single underscores; a letter first; at most {MAX_NAME} characters",
            got=repr(name),
        )
    if keyword.iskeyword(name):
        raise UsageError(f"{name!r} is a word of Python itself", expected="a name", hint="choose another name")


def _check_free(name: str, module: str, project: str) -> None:
    """What is installed keeps its names."""
    from equivengine.runtime.registry import Registry

    registry = Registry.load()
    taken = [record.owner for record in registry.records if record.name == name]
    for shelf in (registry.backends, registry.probes, registry.datasets, registry.executors):
        found = shelf.names()
        taken += [f"{shelf.kind} {name!r}"] if name in found else []
    if not taken and (importlib.util.find_spec(module) is not None or module in sys.modules):
        taken.append(f"the package {module!r}")
    with contextlib.suppress(PackageNotFoundError):
        taken.append(f"the distribution {distribution(project).name}")
    if taken:
        raise UsageError(f"the name {name!r} is taken", got=f"installed: {taken[0]}", hint="choose another name")


def _check_folder(folder: Path) -> None:
    if os.path.lexists(folder):
        raise UsageError(
            f"{str(folder)!r} exists already", expected="a directory that is not there", hint="pass another --out DIR"
        )
    if not folder.absolute().parent.is_dir():
        raise UsageError(
            f"{str(folder.absolute().parent)!r} is no directory",
            expected="a place for the new directory",
            hint="make it first, or pass another --out DIR",
        )


def _write(folder: Path, texts: dict[str, str]) -> None:
    """Write all files beside the destination, and move them there in one step."""
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.absolute().parent))
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        for path, text in texts.items():
            file = aside / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        aside.chmod(0o755)
        os.rename(aside, folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{str(folder)!r} cannot be written",
        expected="a place on a disk with room, that may be written to",
        got=error.strerror or error,
        hint="pass another --out DIR",
    )
