"""Being stopped at any moment: what was published stays, and resume computes only the rest, to the same content."""

from __future__ import annotations

import json
import signal
import time

import pytest
import torch

from equivengine import open_run

COUNT = 6
PROBE = (
    "probe", "--plugin", "measure", "--model", "toy", "--images", f"noise:{COUNT}?size=8&mode=L",
    "--set", "seconds=0.2", "--progress", "json",
)  # fmt: skip


def shards(run):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (run / "shards").rglob("*.h5")}


def content(run):
    with open_run(run) as opened:
        return {
            record.unit_id: (record.summary, {name: array.data.tolist() for name, array in record.arrays.items()})
            for record in opened.units()
        }


def finished(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["unit_id"] for line in lines if line["event"] == "unit_finished"]


def wait_for_units(process, count):
    """Read progress until ``count`` units are published."""
    while count:
        line = process.stderr.readline()
        assert line, "the process ended early"
        count -= '"published", "seconds"' in line


@pytest.fixture
def one_thread():
    """As in the processes that `start` starts: the last bits of a sum depend on how many threads share it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_resume_finishes_what_a_signal_cut_short(toys, start, cli, tmp_path, number, code):
    run = tmp_path / "run"
    process = start(*PROBE, "--out", run)
    wait_for_units(process, 2)
    time.sleep(0.1)  # within the third unit
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == ""
    assert "Traceback" not in err
    if number != signal.SIGKILL:
        assert f"equivengine resume {run}" in err
    before, done = shards(run), finished(run)
    assert 2 <= len(before) < COUNT
    missing = cli("show", run).out
    assert f"{COUNT - len(before)} unit" in missing
    assert f"equivengine resume {run}" in missing

    said = cli("resume", run)
    assert f"{COUNT - len(before)} computed, {len(before)} already there" in said.out
    after = shards(run)
    assert {name: after[name] for name in before} == before
    assert len(after) == COUNT
    assert len(set(finished(run)[len(done) :]) & {name.removesuffix(".h5") for name in before}) == 0
    assert not list(run.rglob("tmp.*"))

    cli(*PROBE, "--out", tmp_path / "undisturbed")
    assert content(run) == content(tmp_path / "undisturbed")
    assert shards(run) == after


@pytest.mark.usefixtures("one_thread")
def test_resume_finishes_a_batch_that_a_signal_cut_short(toys, start, cli, tmp_path):
    """Killed while the units of a batch are published, one after the other."""
    run = tmp_path / "run"
    probe = (
        "probe", "--plugin", "together", "--model", "toy", "--images", "noise:24?size=8&mode=L",
        "--set", "largest=24", "--set", "references=5", "--progress", "json",
    )  # fmt: skip
    process = start(*probe, "--out", run)
    while len(shards(run)) < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    process.kill()
    process.communicate(timeout=30)
    before = shards(run)
    assert 3 <= len(before) < 24  # within the one batch
    cli("resume", run)
    after = shards(run)
    assert {name: after[name] for name in before} == before
    cli(*probe, "--out", tmp_path / "undisturbed")
    assert len(content(run)) == 24
    assert content(run) == content(tmp_path / "undisturbed")


def test_an_interruption_in_this_process_is_no_failure(measure, cli, tmp_path):
    said = measure("--set", "behaviour=interrupts", code=130)
    assert f"equivengine resume {tmp_path / 'run'}" in said.err
    assert "3 units are missing" in cli("show", tmp_path / "run").out


def test_an_interruption_before_the_first_unit_leaves_nothing(cli, tmp_path, monkeypatch):
    from equivengine.runtime import loading

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "load_encoder", interrupt)
    said = cli("probe", "--plugin", "measure", "--model", "toy", "--images", "noise:1?size=8", "--out", "run", code=130)
    assert "nothing was written" in said.err
    assert not (tmp_path / "run").exists()
