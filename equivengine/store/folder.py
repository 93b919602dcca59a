"""Directories of runs: which one is a run, which runs lie in a folder, and what is said of a path that is neither."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from equivengine.contracts.wording import counted
from equivengine.errors import StoreError
from equivengine.store import refusal, schema

#: Runs that an error names.
_NAMED = 5


def is_run(path: Path) -> bool:
    """Whether a directory holds a plan, as every run does from its first moment on."""
    return os.path.exists(path / schema.PLAN_FILE)  # False also where it may not be looked at


def runs_in(folder: Path) -> list[Path]:
    """Run directories that lie in a folder, sorted by name; those further below do not count.

    Raises:
        StoreError: If it cannot be read.
    """
    with refusal.damage(folder):
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_run(path))


def require_run(root: Path) -> None:
    """Refuse a path that is no run directory.

    Raises:
        StoreError: It says what is there instead, and what to do.
    """
    if root.is_dir() and is_run(root):
        return
    expected = f"a run directory: one with {schema.PLAN_FILE} in it"
    if not root.exists():
        raise StoreError(f"{root} does not exist", expected=expected, hint="correct the path, or begin a run there")
    if not root.is_dir():
        raise StoreError(f"{root} is no directory", expected=expected, got="a file", hint="pass the run's directory")
    place = shlex.quote(str(root))
    if runs := runs_in(root):
        raise StoreError(
            f"{root} is no run, but a folder of {counted(len(runs), 'run')}",
            expected=expected,
            got=_some([path.name for path in runs]),
            hint=f"pass one of them: {shlex.quote(str(runs[0]))}; `equivengine show {place}` lists them",
        )
    whole = root / schema.RUN_FILE
    if whole.exists():
        raise StoreError(
            f"{root} holds no run",
            expected=expected,
            got=f"{schema.RUN_FILE}, without {schema.PLAN_FILE}",
            hint=f"put {schema.PLAN_FILE} back, or read what is there: equivengine show {shlex.quote(str(whole))}",
        )
    held = sorted(path.name for path in root.iterdir())
    begin = f", or begin one there: equivengine probe --out {place} ..."
    raise StoreError(
        f"{root} holds no run",
        expected=expected,
        got=_some(held) or "an empty directory",
        hint=f"pass the directory that a run was written to{'' if held else begin}",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
