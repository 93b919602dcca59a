"""docs/plugins.md runs from top to bottom: files are written, commands entered, and they print what it shows."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from equivengine.cli import main
from equivengine.testing.contract import REQUIREMENTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
#: A file, named in bold above its block; or a console block.
STEPS = re.findall(r"(?:\*\*`(\S+)`\*\*\n\n```python\n(.*?)```)|(?:```console\n(.*?)```)", PAGE, re.DOTALL)
MODULES = ("equivengine_mynet", "equivengine_tilt", "equivengine_checkers")


def commands(block: str) -> list[tuple[str, str]]:
    """Commands of a console block, with what is shown of their output."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def words(line: str) -> list[str]:
    """What must be printed: everything but numbers, which differ by machine, and times."""
    return re.findall(r"[^\W\d_][\w:/.\-]*[^\W\d_]|ok", re.sub(r"\d+(\.\d+)?e-?\d+", "", line))


@pytest.fixture
def entered(tmp_path, monkeypatch, capsys):
    """Enter a command of the page in an empty directory; returns what it printed."""
    site = tmp_path / "site"
    site.mkdir()
    (work := tmp_path / "work").mkdir()
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(site)
    for name in ("EQUIVENGINE_PLUGINS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    environment = {
        "PYTHONPATH": os.pathsep.join(map(str, (site, ROOT, ROOT / "plugins"))),
        "PIP_TARGET": str(site),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say that there is none
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "NO_COLOR": "1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def enter(command: str) -> str:
        program, *arguments = shlex.split(command)
        if program == "equivengine":  # in this process, which has torch already
            capsys.readouterr()
            code, said = main.run(arguments), capsys.readouterr()
            assert code == 0, f"{command}\n{said.err}{said.out}"
            return said.out
        module = {"python": [], "pip": ["-m", "pip"], "pytest": ["-m", "pytest", "-p", "no:cacheprovider"]}[program]
        done = subprocess.run([sys.executable, *module, *arguments], capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, f"{command}\n{done.stderr}{done.stdout}"
        return done.stdout

    yield enter
    for name in list(sys.modules):
        if name in MODULES:
            del sys.modules[name]


def test_the_page_runs_from_top_to_bottom(entered):
    tried = []
    for file, source, block in STEPS:
        if file:
            path = Path(file)
            assert path.is_file() == file.endswith("__init__.py")  # `plugin new` wrote what is replaced, and no more
            path.write_text(source, encoding="utf-8")
            continue
        for command, shown in commands(block):
            printed = entered(command)
            tried.append(command)
            for line in shown.splitlines():
                assert any(set(words(line)) <= set(words(said)) for said in printed.splitlines()), (
                    command,
                    line,
                    printed,
                )
    for needed in ("--plugin ldlc", "--plugin spectrum", "--plugin match", "plugin check", "report", "pytest"):
        assert any(needed in command for command in tried), needed
    page = Path("tilt-run/report.html").read_text(encoding="utf-8")
    assert "Light from one side moves the embedding by up to" in page
    assert re.search(r"<figcaption>[^<]*Light from one side", page)  # the figure of `figures`, not the sentence


def test_the_backend_has_fewer_than_40_lines_and_the_blocks_compile():
    files = {file: source for file, source, _ in STEPS if file}
    assert len(files) == 5
    for source in files.values():
        ast.parse(source)
    assert len(files["equivengine-mynet/src/equivengine_mynet/__init__.py"].splitlines()) < 40


def test_no_block_escapes_the_test():
    assert PAGE.count("```") == 2 * len(STEPS)


def test_the_tables_list_every_requirement_in_its_words():
    rows = set(re.findall(r"^\| `(\w+)` \| (.*?) \|$", PAGE, re.MULTILINE))
    listed = {(r.name, r.sentence) for requirements in REQUIREMENTS.values() for r in requirements}
    assert listed <= rows
    assert {row for row in rows if row[0] in {name for name, _ in listed}} == listed
