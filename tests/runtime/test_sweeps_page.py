"""docs/sweeps.md: its run files plan as many units as they say, and its commands do what is shown."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from equivengine.cli import main

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import pages  # noqa: E402  tools/ is on the path only now

BLOCKS = list(pages.found((ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")))
FILES = {}
for _block in BLOCKS:
    if _block.language == "toml":
        FILES[re.match(r"# (\w+\.toml)", _block.body)[1]] = _block.body
COMMANDS = [pair for block in BLOCKS if block.language == "console" for pair in block.commands]


@pytest.fixture
def enter(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, value in {"COLUMNS": "110", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    def run(command):
        program, *words = command.split()
        assert program == "equivengine"
        code = main.run(words)
        return code, capsys.readouterr()

    return run


@pytest.mark.parametrize("name", [name for name, text in FILES.items() if "units" in text.partition("\n")[0]])
def test_a_file_plans_as_many_units_as_it_says(enter, name):
    count = re.match(r"# .*: (\d+) units", FILES[name])[1]
    code, said = enter(f"equivengine run {name} --dry-run --no-estimate")
    assert code == 0, said.err
    assert re.search(rf"^{int(count):,} units", said.out, re.MULTILINE), said.out


def plain(text):
    """Words by line; the digest of a plan changes with the version of a probe."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return [re.sub(r"\bplan [0-9a-f]{12}\b", "plan ...", line) for line in lines]


def test_the_commands_do_what_is_shown(enter):
    entered = 0
    for command, shown in COMMANDS:
        code, said = enter(command)
        assert code == (2 if "error:" in shown else 0), said.err
        if shown:
            assert plain(shown) == plain(said.err if code else said.out)
        entered += 1
    assert entered == len(COMMANDS) == 5
    assert len(FILES) == 9
    assert "already there" in enter(COMMANDS[0][0])[1].out
