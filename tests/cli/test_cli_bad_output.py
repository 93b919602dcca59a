"""Output directories that cannot be used, and results that cannot be read."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def test_a_directory_that_holds_another_plan_is_left_alone(measure, cli, tmp_path):
    measure()
    before = cli("show", tmp_path / "run").out
    said = measure("--seed", 1, code=1)
    assert "holds another plan" in said.err
    assert "choose another --out" in said.err
    assert cli("show", tmp_path / "run").out == before


def test_a_directory_of_someone_elses_files_is_left_alone(measure, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    said = measure(code=1)
    assert "is not empty and holds no run" in said.err
    assert "got: thesis.tex" in said.err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("out", ["a_file", "a_file/below", "/proc/equivengine", "/dev/null/run"])
def test_a_directory_that_cannot_be_made(measure, tmp_path, out):
    (tmp_path / "a_file").write_text("")
    said = measure(out=out if out.startswith("/") else tmp_path / out, code=1)
    assert ("cannot make the directory" if out.startswith("/proc") else "cannot write in") in said.err
    assert "gone" not in said.err  # it never was
    assert "choose another --out" in said.err
    assert (tmp_path / "a_file").read_text() == ""


def test_a_directory_that_became_read_only(measure, cli, tmp_path):
    run = tmp_path / "run"
    measure()
    next((run / "shards").rglob("*.h5")).unlink()
    if os.geteuid() == 0:
        bound = subprocess.run(["mount", "--bind", "-o", "ro", run, run], capture_output=True)
        if bound.returncode:
            pytest.skip("root writes everywhere, and read-only mounts are not allowed here")
    else:
        for path in [run, *run.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert "cannot write in" in cli("resume", run, code=1).err
        assert "1 unit is missing" in cli("show", run).out
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", run], check=True)
        else:
            for path in [run, *run.rglob("*")]:
                path.chmod(0o755)


@pytest.mark.parametrize("command", ["resume", "show"])
@pytest.mark.parametrize("what", ["nothing", "empty", "texts"])
def test_what_is_no_run(cli, tmp_path, command, what):
    path = tmp_path / "no run"
    if what != "nothing":
        path.mkdir()
    if what == "texts":
        (path / "plan.json").write_text("{}")
    said = cli(command, path, code=1)
    assert "no run" in said.err
    assert said.out == ""


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_damaged_file_alone(measure, cli, tmp_path, damage):
    measure()
    file = tmp_path / "run" / "run.h5"
    data = file.read_bytes()
    file.write_bytes({"truncated": data[: len(data) // 2], "text": b"results", "empty": b""}[damage])
    assert str(file) in cli("show", file, code=1).err
    assert "3 images" in cli("show", tmp_path / "run").out  # the shards are whole
    cli("resume", tmp_path / "run")
    assert "3 images" in cli("show", file).out


def test_a_damaged_shard(measure, cli, tmp_path):
    measure()
    shard = next((tmp_path / "run" / "shards").rglob("*.h5"))
    run, spoilt = tmp_path / "run", shard.read_bytes()[:100]
    shard.write_bytes(spoilt)
    assert shard.name in cli("show", run, code=1).err
    said = measure(code=1)  # a start goes by names, and finds it when it consolidates
    assert shard.name in said.err
    assert "equivengine resume" in said.err
    assert shard.read_bytes() == spoilt
    said = cli("resume", run)
    assert f"{shard.name} is damaged" in said.err
    assert f"it was moved to damaged/{shard.name}.0" in said.err
    assert "1 computed, 2 already there" in said.out
    assert (run / "damaged" / f"{shard.name}.0").read_bytes() == spoilt
    assert "3 images" in cli("show", run).out


def test_a_damaged_plan(measure, cli, tmp_path):
    measure()
    plan = tmp_path / "run" / "plan.json"
    plan.write_text(plan.read_text().replace('"probe"', '"porbe"'))
    assert "plan" in cli("resume", tmp_path / "run", code=1).err


def test_a_full_disk_stops_the_run_and_keeps_what_is_there(measure, cli, tmp_path, monkeypatch):
    from equivengine.errors import StoreError
    from equivengine.store import RunDirectory

    publish, published = RunDirectory.publish, []

    def full(self, unit, result, provenance):
        if published:
            raise StoreError("there is no room to write", hint="free some space")
        published.append(unit)
        return publish(self, unit, result, provenance)

    monkeypatch.setattr(RunDirectory, "publish", full)
    assert "there is no room to write" in measure(code=1).err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert len(list((tmp_path / "run" / "shards").rglob("*.h5"))) == 1


def test_a_run_can_be_moved(measure, cli, tmp_path):
    measure()
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    assert "3 already there" in cli("resume", tmp_path / "elsewhere").out


def test_resume_takes_the_directory_and_says_which(measure, cli, tmp_path):
    measure()
    said = cli("resume", tmp_path / "run" / "run.h5", code=2)
    assert f"next: equivengine resume {tmp_path / 'run'}\n" in said.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_said(cli, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        said = cli("ls", "probes", "--json", code=1)
    assert said.err.startswith("error: what was to be printed cannot be written\n")
    assert "No space left on device" in said.err
