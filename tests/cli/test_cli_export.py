"""``equivengine export``: where tables go, and what is asked of options."""

from __future__ import annotations

import csv
import io
import json

import pytest

from equivengine import open_run


@pytest.fixture
def run(measure, photos, tmp_path):
    (photos / "b.png").write_bytes(b"no image")
    measure(code=3)
    return tmp_path / "run"


def table(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_tables_go_beside_run_h5_unless_out_says_otherwise(run, cli, tmp_path):
    said = cli("export", run, "--csv")
    assert f"{run / 'export' / 'units-measure.csv'}: 3 rows" in said.out
    rows = table((run / "export" / "units-measure.csv").read_text())
    assert sorted(row["status"] for row in rows) == ["failed", "ok", "ok"]
    with open_run(run) as opened:
        stored = [record.summary["norm"].value for record in opened.units()]
    assert [float(row["norm"]) for row in rows if row["norm"]] == stored
    cli("export", run / "run.h5", "--parquet", "--out", tmp_path / "tables")
    assert len(list((tmp_path / "tables").glob("*.parquet"))) == 4


def test_one_row_is_no_plural(measure, cli, photos, tmp_path):
    measure("--limit", "1")
    said = cli("export", tmp_path / "run", "--csv")
    assert "units-measure.csv: 1 row, " in said.out
    assert "checks.csv: 1 row, 10 columns" in said.out


def test_a_run_with_tables_in_it_is_still_a_run(run, cli, photos, save_image):
    cli("export", run, "--csv")
    assert "1 failed" in cli("resume", run, code=3).out


def test_nothing_is_overwritten_without_force(run, cli):
    cli("export", run, "--csv")
    said = cli("export", run, "--csv", code=2)
    assert "is there already" in said.err
    assert "--force" in said.err
    cli("export", run, "--csv", "--force")


def test_one_table_goes_to_stdout_or_a_file(run, cli, tmp_path):
    wide = table(cli("export", run, "--csv", "--out", "-").out)
    assert [row["unit.probe"] for row in wide] == ["measure"] * 3
    long = table(cli("export", run, "--csv", "--out", "-", "--long").out)
    assert {row["name"] for row in long} == {"norm", "response"}
    cli("export", run, "--csv", "--out", tmp_path / "one.csv")
    assert len(table((tmp_path / "one.csv").read_text())) == 3
    cli("export", run, "--csv", "--out", tmp_path / "one.csv", code=2)


def test_json_is_one_document_on_stdout_or_in_a_file(run, cli, tmp_path):
    document = cli("export", run, "--json").document
    assert len(document["units"]) == 3
    assert cli("export", run, "--json", "--out", tmp_path / "all.json").out.strip() == str(tmp_path / "all.json")
    assert json.loads((tmp_path / "all.json").read_text()) == document


def test_missing_units_are_mentioned(run, cli):
    next((run / "failures").glob("*.json")).unlink()
    assert "1 unit of the plan is missing" in cli("export", run, "--json").err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "the format is missing"),
        (["--csv", "--json"], "there are several formats"),
        (["--json", "--long"], "--long has no meaning"),
        (["--csv", "--long"], "--long is for one file"),
        (["--csv", "--probe", "nothing"], "no results of probe 'nothing'"),
        (["--csv", "--out", "taken"], "cannot write in"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "none",
)
def test_bad_options_are_one_clear_error(run, cli, tmp_path, options, says):
    (tmp_path / "taken").write_text("a file")
    said = cli("export", run, *options, code=1 if "--probe" in options or "taken" in options else 2)
    assert says in said.err


def test_one_file_takes_one_probe(cli, photos, toys, tmp_path):
    (tmp_path / "two.toml").write_text(
        f'models = ["toy"]\nimages = ["folder:{photos}"]\nout = "two"\n'
        '[[probes]]\nname = "measure"\n[[probes]]\nname = "spread"\n'
    )
    cli("run", "two.toml")
    said = cli("export", "two", "--csv", "--out", "-", code=2)
    assert "measure, spread" in said.err
    assert len(table(cli("export", "two", "--csv", "--out", "-", "--probe", "spread").out)) == 1


def test_what_is_no_run_is_said(cli, tmp_path):
    assert "does not exist" in cli("export", tmp_path / "nothing", "--json", code=1).err
