"""docs/compare.md: its run file, its commands and its code, one after the other; its table of headlines."""

import re
import shlex
from pathlib import Path

import pytest

from equivengine.cli import main
from equivengine.runtime.registry import from_environment

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "compare.md").read_text()
BLOCKS = re.findall(r"```(toml|console|python)\n(.*?)```", TEXT, re.DOTALL)


def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capfd):
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    for language, block in BLOCKS:
        if language == "toml":
            Path(re.match(r"# (\S+)", block)[1]).write_text(block)
        elif language == "python":
            exec(block, {})
        else:
            for line in block.splitlines():
                program, *arguments = shlex.split(line.removeprefix("$ "))
                assert program == "equivengine"
                assert main.run(arguments) == 0, line
    said = capfd.readouterr().out
    assert re.search(r"digits\?weights=random&seed=0 effective_rank \d\.\d+ \(\d\.\d+, \d\.\d+\) \d of 6", said)
    assert re.search(r"^digits [\d.]+ 6$", said, re.MULTILINE)
    assert "for each class of images" in said
    assert len(BLOCKS) == 7
    assert {path.name for path in tmp_path.iterdir()} >= {"compare.html", "leaderboard.html", "models.parquet"}


def test_the_table_names_the_headlines_of_all_shipped_probes():
    registry = from_environment()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", TEXT, re.MULTILINE))
    named = set()
    for name in registry.probes.names():
        cls, _ = registry.probe(name)
        for solver in ("lm", "minimal-l2", "minimal-linf") if name == "match" else (None,):
            given = {} if solver is None else {"solver": solver}
            for scalar in cls.headlines(cls.Params.model_validate(given)):
                assert f"`{scalar}`" in rows[name]
                named.add((name, scalar))
    stated = {(probe, scalar) for probe, cell in rows.items() for scalar in re.findall(r"`(\w+)`", cell)}
    assert stated == named
