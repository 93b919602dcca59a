"""docs/export.md: its commands and its code run, one after the other, on a run of digits."""

import re
import shlex
from pathlib import Path

import pytest

from equivengine.cli import main
from equivengine.runtime.config import ProbeRequest, RunConfig
from equivengine.runtime.engine import execute
from equivengine.runtime.registry import from_environment
from equivengine.store import open_run

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text()
BLOCKS = re.findall(r"```(console|python)\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("docs")
    config = RunConfig(
        probes=[ProbeRequest(name="spectrum")],
        models=["digits"],
        images=["digits"],
        limit=2,
        out=str(path / "runs" / "spectrum"),
    )
    execute(config, registry=from_environment())
    return path


def test_the_page_runs_from_top_to_bottom(folder, monkeypatch, capfd):
    for package in ("xarray", "pyarrow"):
        pytest.importorskip(package)
    monkeypatch.chdir(folder)
    for language, block in BLOCKS:
        if language == "python":
            exec(block, {})
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line.removeprefix("$ "))
            assert program == "equivengine"
            assert main.run(arguments) == 0
    said = capfd.readouterr().out
    with open_run("runs/spectrum") as run:
        values = run.summary("spectrum")["s_1"].values.tolist()
    assert said.count(f"{values}") == 2  # by Parquet and by JSON
    assert all(f"digit-000{place} {value!r} true" in said for place, value in enumerate(values))
    assert "embedding / pixel" in said
    assert len(BLOCKS) == 7


def test_the_page_names_every_column_and_table(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main.run(["export", "runs/spectrum", "--csv", "--out", "all"]) == 0
    names = {path.name.removesuffix(".csv").replace("spectrum", "PROBE") for path in (folder / "all").iterdir()}
    assert all(f"`{name}`" in TEXT for name in names)
    header = (folder / "all" / "units-spectrum.csv").read_text().splitlines()[0].replace('"', "").split(",")
    facts = [name for name in header if name in ("unit_id", "model", "sample", "status") or name.startswith("unit.")]
    assert len(facts) > 12
    assert all(f"`{name}`" in TEXT for name in facts)
