"""The command line in this process, on plugins that pip installed into a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from equivengine.cli import main

ROOT = Path(__file__).resolve().parents[2]


def pip_install(target: Path, *sources: Path) -> None:
    """Build distributions and install them into a folder, without a network and without their dependencies."""
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), *map(str, sources)]
    done = subprocess.run(command, cwd=target.parent, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def use_folder(monkeypatch, tmp_path) -> Callable[[Path], None]:
    """Put a folder of installed packages on the import path, also of child processes; works in an empty directory."""

    def use(folder: Path) -> None:
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT), str(ROOT / "plugins")]))
        monkeypatch.delenv("EQUIVENGINE_PLUGINS", raising=False)
        monkeypatch.chdir(tmp_path)

    return use


@pytest.fixture
def equivengine(capsys) -> Callable[..., str]:
    """Run a command, which must succeed; returns its stdout."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        code = main.run(list(arguments))
        said = capsys.readouterr()
        assert code == 0, said.err + said.out
        return said.out

    return run
