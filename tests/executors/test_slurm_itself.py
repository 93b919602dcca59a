"""The Slurm executor on Slurm: its own daemons on this machine, where they are installed (see slurm_daemons.py)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import deeds
import pytest
import slurm_daemons

import equivengine as eqv
from equivengine_plugins.executors import slurm_array
from equivengine_plugins.executors.slurm import Slurm, SlurmParams

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def daemons(tmp_path_factory):
    try:
        with slurm_daemons.started(tmp_path_factory.mktemp("slurm")) as slurm:
            yield slurm
    except LookupError as error:
        pytest.skip(str(error))


@pytest.fixture
def slurm(daemons, monkeypatch):
    """The daemons, with nothing in their queue; commands of this test reach them."""
    for name, value in daemons.environment.items():
        monkeypatch.setenv(name, value)
    yield daemons
    daemons.wait_for(lambda tasks: not {"RUNNING", "PENDING", "COMPLETING"} & set(tasks.values()))


@pytest.fixture
def executor():
    return lambda **params: Slurm(SlurmParams(**{"cpus": 1, "look": 0.2, "partition": "low", **params}))


@pytest.fixture
def meanwhile(tmp_path):
    """Do something once so many batches have begun; what it raises fails the test."""
    problems, threads = [], []

    def start(count, call):
        def wait_and_call():
            try:
                while len(deeds.log(tmp_path / "results")) < count:
                    time.sleep(0.05)
                call()
            except BaseException as error:
                problems.append(error)

        threads.append(threading.Thread(target=wait_and_call, daemon=True))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(200)
    assert problems == []


def outcomes(found):
    return Counter((outcome.outcome, outcome.error_type) for _, batch in found for outcome in batch)


def the_task(slurm):
    (task,) = [task for task, state in slurm.tasks().items() if state == "RUNNING"]
    return task


def test_an_array_carries_out_every_batch_once_and_leaves_nothing(carry_out, executor, slurm, tmp_path):
    before = slurm.tasks()
    executor().check("auto")
    found, noted = carry_out(executor(tasks=3, parallel=2, threads=2), *["fine"] * 7)
    assert outcomes(found) == {("published", ""): 7}
    assert len(noted) == 7
    assert {entry["threads"] for entry in noted} == {"2"}
    slurm.wait_for(lambda tasks: Counter(tasks.values())["COMPLETED"] == Counter(before.values())["COMPLETED"] + 3)
    assert not (tmp_path / "results" / slurm_array.FOLDER).exists()


def test_a_task_that_is_signaled_before_it_is_preempted_goes_back_to_the_queue_and_on(
    carry_out, executor, slurm, meanwhile
):
    def preempt():
        """As Slurm does with a time of grace; the signals reach every process of the task."""
        task = the_task(slurm)
        slurm.say("scancel", "--signal=TERM", task)
        slurm.say("scancel", "--signal=USR2", task)
        slurm.wait_for(lambda tasks: tasks[task] == "PENDING")
        slurm.say("scontrol", "update", f"JobId={task}", "StartTime=now")  # it would wait for two minutes

    meanwhile(2, preempt)
    found, noted = carry_out(executor(), "fine", "linger 100", "fine")
    assert outcomes(found) == {("published", ""): 3}
    assert [entry["deed"] for entry in noted] == ["fine", "linger 100", "fine", "linger 100", "fine"]
    assert len({entry["pid"] for entry in noted}) == 2


def test_a_task_whose_node_is_taken_away_without_its_notice_goes_on(carry_out, executor, slurm, meanwhile):
    """Preempted by another partition, it is killed after the time of grace, and Slurm puts it back by itself."""

    def take():
        task = the_task(slurm)
        slurm.say("sbatch", "--partition=high", "--ntasks=4", "--output=/dev/null", "--wrap=sleep 1")
        slurm.wait_for(lambda tasks: tasks[task] == "PENDING")
        slurm.say("scontrol", "update", f"JobId={task}", "StartTime=now")

    meanwhile(2, take)
    found, noted = carry_out(executor(), "fine", "linger 100", "fine")
    assert outcomes(found) == {("published", ""): 3}
    assert Counter(entry["deed"] for entry in noted) == {"fine": 3, "linger 100": 2}


def test_a_task_that_reaches_its_time_limit_goes_on(carry_out, executor, slurm, meanwhile):
    def release():
        task = the_task(slurm)
        slurm.wait_for(lambda tasks: tasks[task] == "PENDING", seconds=150)
        slurm.say("scontrol", "update", f"JobId={task}", "StartTime=now")

    meanwhile(2, release)
    found, noted = carry_out(executor(time=1), "fine", "linger 300", "fine")
    assert outcomes(found) == {("published", ""): 3}
    assert [entry["deed"] for entry in noted] == ["fine", "linger 300", "fine", "linger 300", "fine"]


def test_a_task_that_is_killed_outright_is_submitted_again(carry_out, executor, slurm, meanwhile, mark):
    def kill():
        (pid,) = [pid for pid in mark() if is_task(pid)]
        os.kill(pid, signal.SIGKILL)

    meanwhile(2, kill)
    found, noted = carry_out(executor(), "fine", "linger 100", "fine")
    assert outcomes(found) == {("published", ""): 3}
    assert Counter(entry["deed"] for entry in noted) == {"fine": 2, "linger 100": 2}
    assert "FAILED" in slurm.tasks().values()


def is_task(pid):
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"submitit.core._submit" in words and words[0].rpartition(b"/")[2].startswith(b"python")


def test_a_task_that_is_canceled_says_how_to_go_on(carry_out, executor, slurm, meanwhile, tmp_path):
    meanwhile(1, lambda: slurm.say("scancel", the_task(slurm)))
    with pytest.raises(eqv.EngineError, match="was canceled") as refused:
        carry_out(executor(), "wait 60", "fine")
    assert f"equivengine resume {tmp_path / 'results'} --executor slurm" in refused.value.hint


def test_ctrl_c_cancels_the_array(carry_out, executor, slurm, interrupt):
    interrupt(2)
    with pytest.raises(KeyboardInterrupt):
        carry_out(executor(tasks=2), "wait 100", "wait 100")
    slurm.wait_for(lambda tasks: "RUNNING" not in tasks.values())


def test_parameters_that_slurm_does_not_take_are_one_error(carry_out, executor, slurm):
    with pytest.raises(eqv.EngineError, match="could not be submitted to Slurm") as refused:
        carry_out(executor(partition="nowhere"), "fine")
    assert "invalid partition" in refused.value.got
