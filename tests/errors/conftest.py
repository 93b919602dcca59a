from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

#: Where the builders of runs, image sets and checkpoints are that other tests have.
sys.path += [str(Path(__file__).parents[1] / room) for room in ("store", "datasets", "backends", "probes")]

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.inner = nn.Linear(64, width)

    def forward(self, x):
        return self.inner(x.flatten(1))

NUMBER = 3

def fails(width=4):
    raise ValueError("no licence server")

def nothing():
    return 3

def fickle():
    return Net()

def wide():
    return Net(80)

class Dead(Net):
    def forward(self, x):
        return super().forward(torch.relu(x - 0.1))

def dead():
    return Dead()
"""

MARKS = ("error:", "    ", "  expected: ", "  got: ", "  next: ")


@pytest.fixture
def refused(lasting_toys, tmp_path, monkeypatch, capsys):
    """Run a command that cannot be carried out: one error without a traceback, and nothing is left behind.

    ``keeps`` names what the command may leave, as a run whose units failed does; ``block=False`` is for commands that
    list what they find instead of stopping at it.
    """
    from equivengine.cli import main

    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "EQUIVENGINE_DEVICE", "EQUIVENGINE_EXECUTOR", "EQUIVENGINE_PROGRESS"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: object, code: int | tuple[int, ...] = 2, keeps: tuple[str, ...] = (), block: bool = True) -> str:
        before = _tree(tmp_path, keeps)
        capsys.readouterr()
        found = main.run([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert found in (code if isinstance(code, tuple) else (code,)), err + out
        assert _tree(tmp_path, keeps) == before
        if block and not keeps:
            assert out == ""
            assert err.count("error:") == 1
            assert err.startswith("error: ")
            assert all(line.startswith(MARKS) for line in err.splitlines()), err
        return out + err

    return run


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A run of one unit, consolidated."""
    from store_cases import make_plan, make_result, make_unit

    from equivengine.store import RunDirectory

    directory = RunDirectory.create_or_open(tmp_path_factory.mktemp("runs") / "run", make_plan(1), "digest")
    assert directory.publish(make_unit(), make_result(size=3000), {"host": "here"})
    directory.consolidate()
    return directory.path


@pytest.fixture
def run(published, tmp_path):
    """A copy of it, in the working directory."""
    return shutil.copytree(published, tmp_path / "run")


@pytest.fixture
def nets(tmp_path):
    """A module of networks in the working directory, for addresses such as ``module:nets.Net``."""
    (tmp_path / "nets.py").write_text(NETS)
    yield tmp_path
    sys.modules.pop("nets", None)


def _tree(folder: Path, keeps: tuple[str, ...]) -> dict[str, bytes]:
    paths = [Path(base) / name for base, _, names in os.walk(folder) for name in names]
    found = {path.relative_to(folder) for path in paths}
    return {str(path): (folder / path).read_bytes() for path in sorted(found) if path.parts[0] not in keeps}
