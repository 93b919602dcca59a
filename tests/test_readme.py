"""The README runs: its Python, and its console blocks, which print what it shows (numbers and times aside)."""

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from equivengine.runtime.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import refresh_readme  # noqa: E402

README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
BLOCKS = list(refresh_readme.blocks(README))
QUICK = [block for block in BLOCKS if not block.slow]
SLOW = [command for block in BLOCKS if block.slow for command in block.commands]
#: Words that say something about the machine, not about the program.
MACHINE = {
    "AMD",
    "EPYC",
    "Intel",
    "Xeon",
    "NVIDIA",
    "GPU",
    "no",
    "avx",
    "base",
    "cuda",
    "CUDA",
    "reference",
    "MB",
    "GB",
}


def words(text: str) -> set[str]:
    """The words of a text, without numbers, digests and what depends on the machine."""
    found = set(re.findall(r"(?<![\w.])[A-Za-z_|][A-Za-z_|]+(?![\w.])", text))
    return {word for word in found - MACHINE if not re.fullmatch(r"[0-9a-f]+", word)}


def assert_shows(output: str, shown: str) -> None:
    missing = words(shown) - words(output)
    assert shown.strip(), "the README shows no output: python tools/refresh_readme.py"
    assert len(missing) <= 0.1 * len(words(shown)), f"shown in the README, not printed: {sorted(missing)}"


def test_the_readme_has_commands_and_python():
    assert len(QUICK) >= 3
    assert [command for command, _ in SLOW] == ["make demo"]
    assert len(PYTHON) == 2


@pytest.mark.parametrize("block", QUICK, ids=[block.commands[0][0][:40] for block in QUICK])
def test_console_block_runs_and_prints_what_the_readme_shows(block, tmp_path):
    for command, shown in block.commands:
        assert command.startswith("equivengine ")
        assert_shows(refresh_readme.run(command, tmp_path), shown)


@pytest.mark.slow
def test_the_demo_prints_what_the_readme_shows(tmp_path):
    ((_, shown),) = SLOW
    output = refresh_readme.run("make demo", tmp_path)
    assert (tmp_path / "runs" / "demo" / "run.h5").is_file()
    assert_shows(output, shown)


def test_the_demo_in_the_readme_shows_the_main_results():
    ((_, shown),) = SLOW
    for words_of in (
        "largest singular value",
        "random directions",
        "null-space",
        "matching gradient",
        "checks",
        "run.h5",
    ):
        assert words_of in shown
    assert "FAILED" not in shown


def test_python_of_the_readme_runs(tmp_path):
    (tmp_path / "block.py").write_text(PYTHON[0])
    done = subprocess.run([sys.executable, "block.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shape, random, *_, null = re.sub(r"\n\s+", " ", done.stdout).splitlines()
    assert shape == "(96, 1024)"
    rates = [[float(x) for x in re.findall(r"[0-9]+\.[0-9]*(?:e[-+]?[0-9]+)?", text)] for text in (random, null)]
    assert [len(found) for found in rates] == [8, 8]
    assert max(rates[1]) < 1e-4 * min(rates[0])


def test_plugin_of_the_readme_loads(tmp_path, monkeypatch):
    (tmp_path / "readme_plugin.py").write_text(PYTHON[1])
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry.load(entries=[EntryPoint("norm", "readme_plugin", "equivengine")])
    assert [(record.state, record.reason) for record in registry.records] == [("loaded", "")]
    assert registry.probe("norm")[0].summary == "length of the embedding"


def test_every_target_that_the_pages_name_is_in_the_makefile():
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        named = set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8")))
        assert named <= targets, f"{page.name} names {named - targets}"
