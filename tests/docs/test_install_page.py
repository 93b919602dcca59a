"""docs/install.md: its blocks run in copies of the source tree, on a machine that has the packages and no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]

import pages  # noqa: E402  tools/ is on the path only now
from test_packaging import copy_tree  # noqa: E402  tests/ is on the path only now

PAGES = pages.pages()
SETUP, BROUGHT, IN_PLACE, PIP = [block.body for block in pages.found(PAGES["docs/install.md"])]
#: Wherever a page says how to have more, also in the midst of a sentence.
EXTRAS = sorted(set(re.findall(r'pip install "equivengine\[\w+\]"', "\n".join(PAGES.values()))))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def interpreter(folder: Path) -> Path:
    """Make an environment that finds the packages of this one, as an interpreter that a machine brings; its bin/.

    pip sees the packages and installs what is missing beside them. It leaves alone what lies outside the environment.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    programs = folder / "bin"
    found = subprocess.run(
        [programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (Path(found.stdout.strip()) / "machine.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (programs / "pip").write_text(f'#!/bin/sh\nexec "{programs}/python" -m pip "$@"\n')
    (programs / "pip").chmod(0o755)
    return programs


@pytest.fixture
def enter(tmp_path):
    """Enter commands in a copy of the source tree, with an interpreter; returns what they print."""
    tree = copy_tree(tmp_path / "tree")

    def run(commands: str, programs: Path | None = None, **variables: str) -> str:
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        path = [*([str(programs)] if programs else []), os.environ["PATH"]]
        environment = kept | {"PATH": os.pathsep.join(path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""} | variables
        words = ["bash", "-euo", "pipefail", "-c", commands]
        done = subprocess.run(words, cwd=tree, env=environment, capture_output=True, text=True, timeout=1700)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.tree = tree
    return run


def test_setup_makes_an_environment_that_brings_the_command(enter):
    interpreter(enter.tree / ".venv")  # `make` makes one where there is none, and pip would fill it from the network
    said = enter(SETUP + "command -v equivengine\nequivengine --version", EQUIVENGINE_NO_EXTENSION="1")
    assert re.search(r"^plugins: \d+ loaded$", said, re.MULTILINE), said
    assert f"{enter.tree}/.venv/bin/equivengine\nequivengine, version" in said


def test_the_torch_that_a_machine_brings_is_used_and_kept(enter, tmp_path):
    said = enter(BROUGHT, interpreter(tmp_path / "python"), EQUIVENGINE_NO_EXTENSION="1")
    assert "6 computed" in said
    assert (enter.tree / "runs" / "demo" / "run.h5").is_file()
    assert not (enter.tree / ".venv").exists()


def test_the_extension_is_compiled_into_the_tree_and_used_without_an_installation(enter, tmp_path):
    where = "python -c 'import equivengine; print(equivengine.__file__)'\n"
    said = enter(IN_PLACE + where, interpreter(tmp_path / "python"), EQUIVENGINE_CUDA="0")
    assert list((enter.tree / "equivengine").glob("_C.*.so"))
    assert re.search(r"^extension: loaded, CPU kernels", said, re.MULTILINE), said
    assert said.endswith(f"{enter.tree}/equivengine/__init__.py\n")


def test_pip_installs_the_package_and_its_extras(enter, tmp_path):
    programs = interpreter(tmp_path / "python")
    said = enter(PIP, programs, EQUIVENGINE_NO_EXTENSION="1")
    assert "Successfully installed equivengine-" in said
    assert len(EXTRAS) >= 5
    for command in EXTRAS:
        assert "Requirement already satisfied: equivengine" in enter(command, programs)
    where = enter("cd /; python -c 'import equivengine; print(equivengine.__file__)'; equivengine --version", programs)
    assert where.startswith(str(tmp_path / "python"))
