"""The Slurm executor on submitit's local cluster: slices, preemption, tasks that die, and what is left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import deeds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import equivengine as eqv
from equivengine_plugins.executors import slurm_array
from equivengine_plugins.executors.slurm import Slurm, SlurmParams
from equivengine_plugins.executors.slurm_array import slices
from equivengine_plugins.executors.slurm_task import Journal


@pytest.fixture
def executor():
    return lambda **params: Slurm(SlurmParams(**{"cluster": "local", "look": 0.1, **params}))


def outcomes(found):
    return Counter((outcome.outcome, outcome.error_type) for _, batch in found for outcome in batch)


# -- slices -----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(models=st.lists(st.integers(1, 30), min_size=1, max_size=5), count=st.integers(1, 12))
def test_slices_hold_every_batch_once_in_order_and_are_equal_in_size(models, count):
    plan = [(deeds.unit("fine", place, f"model-{m}"),) for m, size in enumerate(models) for place in range(size)]
    cut = slices(plan, count)
    assert sorted(map(id, (batch for part in cut for batch in part))) == sorted(map(id, plan))
    sizes = [len(part) for part in cut]
    assert len(cut) == min(count, len(plan))
    assert max(sizes) - min(sizes) <= 1
    assert slices(plan, count) == cut
    for part in cut:
        assert part == sorted(part, key=plan.index)
    loads = sum(len({batch[0].model for batch in part}) for part in cut)
    assert loads <= len(cut) + len(models) - 1, "models stay together"


def test_each_slice_gets_its_share_of_each_probe():
    plan = [(deeds.unit(probe, place),) for probe in ("cheap", "dear", "dearest") for place in range(100)]
    for part in slices(plan, 4):
        shares = Counter(batch[0].probe for batch in part)
        assert all(23 <= shares[probe] <= 27 for probe in ("cheap", "dear", "dearest")), shares


def test_an_empty_plan_has_no_slices():
    assert slices([], 3) == []


# -- the local cluster ------------------------------------------------------------------------------------------------


def test_two_tasks_share_the_batches_and_leave_nothing_behind(carry_out, executor, tmp_path, monkeypatch, mark):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir()) | {tmp_path / "results"}
    names = ["fine", "signal SIGKILL", "once", "fine", "fine", "fine"]
    found, noted = carry_out(executor(tasks=2, threads=3), *names)
    assert outcomes(found) == {("published", ""): 5, ("failed", "Signal"): 1}
    begun = Counter(entry["deed"] for entry in noted if "deed" in entry)
    assert begun == {"fine": 4, "signal SIGKILL": 3, "once": 2}
    assert {entry["threads"] for entry in noted if "deed" in entry} == {"3"}
    assert [entry["error_type"] for entry in noted if "failed" in entry] == ["Signal"]
    assert set(tmp_path.iterdir()) == before
    assert not (tmp_path / "results" / slurm_array.FOLDER).exists()
    assert mark() == []


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def tasks_of(mark):
    return [pid for pid in mark() if b"submitit.core._submit" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def processes_of(mark):
    """Tasks and their processes of units."""
    return [pid for pid in mark() if b"submitit.local" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def signaled(mark, results, count, among, *numbers):
    """Signal some processes, once ``count`` batches have begun."""

    def wait_and_signal():
        wait_for(lambda: len(deeds.log(results)) >= count)
        found = among(mark)
        for number in numbers:
            for pid in found:
                os.kill(pid, number)
            time.sleep(0.2)

    threading.Thread(target=wait_and_signal, daemon=True).start()


@pytest.fixture
def results_at_once(monkeypatch):
    """Submitit waits a while for the result of a task that has gone: disks of clusters are slow."""
    from submitit.core.core import Job

    monkeypatch.setattr(Job, "_results_timeout_s", 0.1)


@pytest.mark.parametrize(
    ("among", "numbers"),
    [
        (tasks_of, [signal.SIGUSR2]),
        # Where Slurm preempts with a time of grace, SIGTERM comes first; some clusters signal all processes of a task.
        (processes_of, [signal.SIGTERM, signal.SIGUSR2]),
    ],
)
def test_a_task_that_is_preempted_is_requeued_and_skips_what_is_published(
    carry_out, executor, tmp_path, mark, among, numbers
):
    signaled(mark, tmp_path / "results", 2, among, *numbers)
    found, noted = carry_out(executor(), "fine", "linger 60", "fine")
    assert outcomes(found) == {("published", ""): 2, ("skipped", ""): 1} or outcomes(found) == {("published", ""): 3}
    assert [entry["deed"] for entry in noted] == ["fine", "linger 60", "fine", "linger 60", "fine"]
    assert len({entry["pid"] for entry in noted}) == 2, "no process of units has died of a signal to all"
    assert mark() == []


def test_a_task_that_is_killed_outright_is_submitted_again_and_the_array_finishes(
    carry_out, executor, tmp_path, mark, results_at_once
):
    signaled(mark, tmp_path / "results", 2, tasks_of, signal.SIGKILL)
    found, noted = carry_out(executor(), "fine", "linger 60", "fine", "fine")
    assert outcomes(found) == {("published", ""): 4}
    begun = Counter(entry["deed"] for entry in noted)
    assert begun == {"fine": 3, "linger 60": 2}, "the batch that was under way, and no other, began again"
    assert not (tmp_path / "results" / slurm_array.FOLDER).exists()
    assert mark() == []


def test_a_task_that_is_killed_before_it_has_begun_anything_is_an_error_that_says_how_to_go_on(
    carry_out, executor, tmp_path, mark, results_at_once
):
    given = executor(setup=["kill -KILL $$"], look=0.2)
    with pytest.raises(eqv.PluginError, match="ended before it had begun anything") as refused:
        carry_out(given, "fine")
    assert refused.value.hint.endswith(
        f"and then equivengine resume {tmp_path / 'results'} --executor slurm "
        "--set-executor 'setup=[\"kill -KILL $$\"]' --set-executor cluster=local --set-executor look=0.2"
    )
    (folder,) = (tmp_path / "results" / slurm_array.FOLDER).iterdir()
    assert str(folder) in refused.value.hint, "what tasks have written stays after an error"
    assert mark() == []


@pytest.mark.slow  # three tasks, one after the other
def test_a_batch_in_which_three_tasks_have_died_fails_alone(carry_out, executor, tmp_path, mark, results_at_once):
    """All that Slurm's memory limit leaves is a state of the task: the batch in which it ended is the suspect."""

    def kill():
        for count in range(1, 4):
            wait_for(lambda count=count: begun("wait 100") >= count)
            for pid in tasks_of(mark):
                os.kill(pid, signal.SIGKILL)

    def begun(deed):
        return sum(entry.get("deed") == deed for entry in deeds.log(tmp_path / "results"))

    threading.Thread(target=kill, daemon=True).start()
    found, _ = carry_out(executor(), "fine", "wait 100", "fine")
    assert outcomes(found) == {("published", ""): 2, ("failed", "WorkerLost"): 1}
    (failed,) = [got[0] for batch, got in found if got[0].outcome == "failed"]
    assert "the task of this unit died 3 times" in failed.message
    assert begun("wait 100") == 3
    assert mark() == []


def test_ctrl_c_ends_tasks_and_their_processes(carry_out, executor, tmp_path, interrupt, mark):
    interrupt(1)
    with pytest.raises(KeyboardInterrupt):
        carry_out(executor(tasks=2), "wait 1000", "wait 1000")
    assert mark() == []
    assert not (tmp_path / "results" / slurm_array.FOLDER).exists()


def test_what_another_command_has_submitted_for_the_run_stays(carry_out, executor, tmp_path):
    other = tmp_path / "results" / slurm_array.FOLDER / "other"
    other.mkdir(parents=True)
    carry_out(executor(), "fine")
    assert list(other.parent.iterdir()) == [other]


@pytest.mark.parametrize(
    ("names", "fields", "says"),
    [
        (["full"], {}, "no room"),
        (["fine"], {"refusal": eqv.PluginError("the worker on here lacks the plugin 'x'")}, "lacks the plugin 'x'"),
    ],
)
def test_what_keeps_a_task_from_going_on_stops_the_run(work, executor, mark, names, fields, says):
    batches = deeds.batches(*names)
    with pytest.raises(eqv.EngineError, match=says):
        executor().map(work(batches, **fields), batches, on_done=print)
    assert mark() == []


# -- with no Slurm ----------------------------------------------------------------------------------------------------


def test_without_sbatch_it_says_where_to_start(executor, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(eqv.EngineError, match="there is no `sbatch` on this machine") as refused:
        executor(cluster="slurm").check("auto")
    assert "cluster=local" in str(refused.value)
    executor().check("auto")


def test_parameters_reach_sbatch(work, monkeypatch, tmp_path):
    """A `sbatch` that keeps what it is given, and a Slurm whose tasks are all done at once and left nothing."""
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/given\necho "sbatch: error: invalid partition" >&2\nexit 1\n')
    sbatch.chmod(0o755)
    for name in ("srun", "sacct", "scancel"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    params = SlurmParams(
        tasks=3, parallel=2, time=90, cpus=6, gpus=1, memory=24, partition="gpu", account="me", qos="low",
        constraint="h100", setup=["module load cuda"],
    )  # fmt: skip
    executor = Slurm(params)
    executor.check("auto")
    batches = deeds.batches("fine", "fine", "fine")
    with pytest.raises(eqv.EngineError, match="could not be submitted") as refused:
        executor.map(work(batches), batches, on_done=print)
    assert "invalid partition" in str(refused.value)
    given = (tmp_path / "given").read_text()
    for line in ("array=0-2%2", "time=90", "signal=USR2@90", "requeue", "cpus-per-task=6", "gpus-per-node=1",
                 "mem=24GB", "partition=gpu", "account=me", "qos=low", "constraint=h100"):  # fmt: skip
        assert f"#SBATCH --{line}\n" in given
    assert "\nmodule load cuda\n" in given


# -- journals ---------------------------------------------------------------------------------------------------------


def test_a_journal_is_read_while_it_grows_and_lines_that_were_cut_off_are_left_out(tmp_path):
    journal = Journal(tmp_path / "journal")
    assert list(journal.news()) == []
    done = '{"outcomes": [{"unit_id": "a", "outcome": "published", "message": "", "seconds": 1.5}]}\n'
    with open(tmp_path / "journal", "a") as file:
        file.write('\n{"begun": "a"}\n' + done[:20])
        file.flush()
        assert list(journal.news()) == []
        assert journal.begun == "a"
        file.write(done[20:] + '{"begun": "b"}\n{"outc')
        file.flush()
        assert list(journal.news()) == [(eqv.UnitOutcome("a", "published", "", 1.5),)]
        assert journal.begun == "b"
        file.write('\n{"begun": "c"}\n')
        file.flush()
        assert list(journal.news()) == []
        assert journal.begun == "c"
