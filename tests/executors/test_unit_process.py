"""A process of units: batches run in it one after the other, and its death is told from everything else."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import deeds
import pytest

import equivengine as eqv
from equivengine_plugins.executors import unit_process, unit_worker
from equivengine_plugins.executors.attempts import ids_of
from equivengine_plugins.executors.unit_process import Died, UnitProcess, threads_environment


@pytest.fixture
def process(work):
    """A process for batches of deeds, and their ids."""
    made = []

    def make(*names, environment=None, **fields):
        batches = deeds.batches(*names)
        made.append(UnitProcess(pickle.dumps(work(batches, **fields)), environment))
        return made[-1], [ids_of(batch) for batch in batches]

    yield make
    for one in made:
        one.close()


def test_batches_run_in_one_process_that_is_not_this_one(process, tmp_path, mark):
    units, (first, second) = process("fine", "print", environment=threads_environment(3))
    assert [outcome.outcome for outcome in units.run(first) + units.run(second)] == ["published", "published"]
    assert units.run(first)[0].outcome == "skipped"
    noted = deeds.log(tmp_path / "results")
    assert {entry["threads"] for entry in noted} == {"3"}
    (pid,) = {entry["pid"] for entry in noted}
    assert mark() == [pid]
    units.close()
    assert mark() == []
    with pytest.raises(Died, match="was ended with the run"):
        units.run(first)


def test_what_a_unit_prints_goes_to_stderr(process, capfd):
    units, (batch,) = process("print")
    units.run(batch)
    units.close()
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "hello from a unit\n")


@pytest.mark.parametrize(
    ("deed", "cause", "kind"),
    [
        ("exit 3", "exited with code 3", "Exit"),
        ("exit 0", "exited with code 0", "Exit"),
        ("signal SIGSEGV", "was killed by SIGSEGV", "Signal"),
        ("signal SIGKILL", "was killed by SIGKILL", "Signal"),
    ],
)
def test_a_death_has_its_cause_and_the_next_batch_a_new_process(process, tmp_path, deed, cause, kind):
    units, (deadly, fine) = process(deed, "fine")
    with pytest.raises(Died) as died:
        units.run(deadly)
    assert (died.value.death.cause, died.value.death.kind) == (cause, kind)
    assert units.run(fine)[0].outcome == "published"
    assert len({entry["pid"] for entry in deeds.log(tmp_path / "results")}) == 2


def test_a_kill_for_want_of_memory_is_told_from_others(process, monkeypatch):
    units, (deadly,) = process("signal SIGKILL")
    counts = iter([4, 5])  # what the kernel counts, before and after
    monkeypatch.setattr(unit_process, "killed_for_memory", lambda: next(counts))
    with pytest.raises(Died) as died:
        units.run(deadly)
    assert died.value.death.kind == "OutOfMemory"
    assert "out of memory" in died.value.death.cause


@pytest.mark.parametrize(("events", "count"), [("low 0\noom 2\noom_kill 7\noom_group_kill 1\n", 7), (None, 3), ("", 3)])
def test_kills_for_want_of_memory_are_counted_in_the_control_group_if_there_is_one(monkeypatch, events, count):
    files = {
        "/proc/self/cgroup": "1:name=other:/x\n0::/system/job_5\n",
        "/sys/fs/cgroup/system/job_5/memory.events": events,
        "/proc/vmstat": "oom_kills 9\noom_kill 3\n",
    }

    def read(path):
        if files.get(str(path)) is None:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    assert unit_process.killed_for_memory() == count


def test_this_kernel_counts_kills_for_want_of_memory():
    assert "oom_kill " in Path("/proc/vmstat").read_text()


def test_a_process_that_is_killed_between_batches_costs_nothing(process, tmp_path):
    units, (first, second) = process("fine", "fine")
    units.run(first)
    (pid,) = {entry["pid"] for entry in deeds.log(tmp_path / "results")}
    os.kill(pid, signal.SIGKILL)
    assert units.run(second)[0].outcome == "published"


def test_what_the_work_raises_comes_here(process):
    units, (full, interrupt, fine) = process("full", "interrupt", "fine")
    with pytest.raises(eqv.StoreError, match="no room"):
        units.run(full)
    with pytest.raises(KeyboardInterrupt):
        units.run(interrupt)
    assert units.run(fine)[0].outcome == "published"


def test_a_process_that_refuses_says_why(process):
    units, (batch,) = process("fine", refusal=eqv.PluginError("no such plugin here", got="nothing"))
    with pytest.raises(eqv.PluginError, match="no such plugin here"):
        units.run(batch)


def test_work_that_cannot_be_read_is_refused(work):
    units = UnitProcess(b"cos\nno_such_function\n.")
    with pytest.raises(eqv.PluginError, match="no_such_function"):
        units.run(("a",))


def test_processes_that_cannot_even_start_are_given_up(process, monkeypatch):
    monkeypatch.setattr(unit_process, "_START", "raise SystemExit(7)")
    units, (batch,) = process("fine")
    with pytest.raises(eqv.PluginError, match="end before they have begun anything") as refused:
        units.run(batch)
    assert refused.value.got == "exited with code 7"


def test_a_process_that_others_kill_while_it_starts_is_started_again(process, monkeypatch, tmp_path):
    first = tmp_path / "started"
    kill = f"import os, pathlib; p = pathlib.Path({str(first)!r}); n = len(p.read_text()) if p.exists() else 0; "
    kill += "p.write_text('x' * (n + 1)); n < 5 and os.kill(os.getpid(), 9); "
    monkeypatch.setattr(unit_process, "_START", kill + unit_process._START)
    units, (batch,) = process("fine")
    assert units.run(batch)[0].outcome == "published"
    assert len(first.read_text()) == 6


def test_a_process_that_cannot_be_made_is_one_error(process, monkeypatch):
    def refuse(*arguments, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(unit_process.subprocess, "Popen", refuse)
    units, (batch,) = process("fine")
    with pytest.raises(eqv.EngineError, match="cannot be started") as refused:
        units.run(batch)
    assert "Resource temporarily unavailable" in refused.value.got


def test_a_process_that_gets_nothing_to_do_ends(work, monkeypatch):
    monkeypatch.setattr(unit_worker, "IDLE_SECONDS", 0.05)
    messages, said = queue.Queue(), []
    messages.put(pickle.dumps(work([])))
    assert unit_worker._serve(SimpleNamespace(send=said.append), messages) == 0
    assert said == [(unit_worker.READY, None)]


def test_it_can_be_ended_in_the_middle_of_a_batch(process, mark):
    units, (batch,) = process("wait 60")
    threading.Timer(1.0, units.close).start()
    start = time.monotonic()
    with pytest.raises(Died):
        units.run(batch)
    assert time.monotonic() - start < 30
    assert mark() == []
