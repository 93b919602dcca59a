"""Folders of runs are listed; of a path that is no run each command says what it is, and what to do."""

from __future__ import annotations

import pytest

from equivengine.errors import StoreError
from equivengine.store import RunDirectory

READERS = ["show", "report", "compare", "verify", "leaderboard", "resume"]


@pytest.fixture
def runs(measure, photos, tmp_path):
    """A folder with a whole run, one of which a unit failed and one is missing, and one that is damaged."""
    folder = tmp_path / "runs"
    measure(out=folder / "whole")
    (photos / "b.png").write_bytes(b"no image")
    measure(out=folder / "half", code=3)
    next((folder / "half" / "shards").rglob("*.h5")).unlink()
    measure(out=folder / "torn", code=3)
    (folder / "torn" / "plan.json").write_text("{")
    (folder / "notes").mkdir()
    (folder / "notes.txt").write_text("nothing")
    return folder


def test_show_lists_the_runs_of_a_folder(runs, cli):
    said = cli("show", runs)
    lines = {line.split()[0]: line for line in said.out.splitlines() if line.strip()}
    assert lines["whole"].split()[1:6] == ["3", "of", "3", "measure", "toy"]
    assert "1 of 3, 1 failed" in lines["half"]
    assert "20" in lines["half"]  # when: a year
    assert "torn cannot be read: " in said.out
    assert "notes" not in said.out
    assert f"  equivengine show {runs / 'half'}\n" in said.out
    assert f"  equivengine resume {runs / 'half'}\n" in said.out


def test_show_lists_them_as_json(runs, cli):
    found = {run["path"].rpartition("/")[2]: run for run in cli("show", runs, "--json").document["runs"]}
    assert list(found) == ["half", "torn", "whole"]
    assert (found["whole"]["planned"], found["whole"]["done"], found["whole"]["failed"]) == (3, 3, 0)
    assert (found["half"]["planned"], found["half"]["done"], found["half"]["failed"]) == (3, 1, 1)
    assert (found["half"]["probes"], found["half"]["models"]) == (["measure"], ["toy"])
    assert found["whole"]["started"] >= "2026"
    assert found["torn"]["error"].endswith("plan.json is damaged")


def test_other_commands_name_the_runs_and_the_next_command(runs, cli):
    for command in READERS[1:]:
        said = cli(command, runs, code=1)
        assert "is no run, but a folder of 3 runs" in said.err
        assert "got: half, torn, whole" in said.err
        assert f"pass one of them: {runs / 'half'}; `equivengine show {runs}` lists them" in said.err


@pytest.mark.parametrize("command", READERS)
def test_a_directory_without_a_run_is_said_to_hold_none(command, cli, tmp_path):
    (tmp_path / "empty").mkdir()
    said = cli(command, "empty", code=1)
    assert "empty holds no run" in said.err
    assert "got: an empty directory" in said.err
    assert "begin one there: equivengine probe --out " in said.err
    (tmp_path / "empty" / "thesis.tex").write_text("")
    said = cli(command, "empty", code=1)
    assert "got: thesis.tex" in said.err
    assert "pass the directory that a run was written to" in said.err
    assert "begin" not in said.err  # nothing begins where other files are


def test_what_does_not_exist_is_not_said_to_lack_a_plan(cli, tmp_path):
    for command in READERS:
        said = cli(command, tmp_path / "nothing", code=1)
        assert said.err.startswith(f"error: {tmp_path / 'nothing'} does not exist\n")


def test_a_directory_that_lost_its_plan_names_the_file_that_is_left(measure, cli, tmp_path):
    measure()
    (tmp_path / "run" / "plan.json").unlink()
    said = cli("resume", tmp_path / "run", code=1)
    assert "got: run.h5, without plan.json" in said.err
    assert f"put plan.json back, or read what is there: equivengine show {tmp_path / 'run' / 'run.h5'}" in said.err
    cli("show", tmp_path / "run" / "run.h5")


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is no directory"):
        RunDirectory.open(tmp_path / "file")
