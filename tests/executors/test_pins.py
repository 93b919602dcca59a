"""What a process of units is started with: its GPU and no other, and no more threads than its share of the cores.

Without a GPU what can be seen is the environment at the start of each process, before any library is loaded; that is
what CUDA goes by. Threads are counted.
"""

from __future__ import annotations

import os
from collections import defaultdict

import deeds
import pytest

from equivengine_plugins.executors.dask import Dask, DaskParams
from equivengine_plugins.executors.slurm import Slurm, SlurmParams


@pytest.fixture
def noted(work):
    """Carry out deeds on an executor; the entries of those that were begun."""

    def run(executor, *names, device="auto"):
        batches = deeds.batches(*names)
        made = work(batches, device=device)
        executor.map(made, batches, on_done=lambda batch, outcomes: None)
        executor.close()
        return deeds.log(made.directory)

    return run


def by_process(entries, name):
    """What each process was started with."""
    found = defaultdict(set)
    for entry in entries:
        if "pins" in entry:
            found[entry["pid"]].add(entry["pins"].get(name))
    return found


def test_each_process_sees_one_gpu_and_no_two_the_same_also_after_one_has_died(noted, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    entries = noted(Dask(DaskParams()), *["wait 0.5"] * 3, "once", *["wait 0.5"] * 5)
    pins = by_process(entries, "CUDA_VISIBLE_DEVICES")
    assert len(pins) == 4, "three processes, and one in place of that which died"
    assert {frozenset(own) for own in pins.values()} == {frozenset({pin}) for pin in ("4", "6", "7")}
    (deadly, again) = [entry for entry in entries if entry["deed"] == "once"]
    first = pins[deadly["pid"]]
    assert deadly["pid"] != again["pid"]
    assert sum(own == first for own in pins.values()) == 2, "that in its place has its GPU"


def test_on_a_cpu_gpus_stay_as_they_are_and_processes_share_the_cores(noted, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6)))
    entries = noted(Dask(DaskParams(workers=2)), *["wait 0.5"] * 4, device="cpu")
    pins = by_process(entries, "CUDA_VISIBLE_DEVICES")
    assert list(pins.values()) == [{"4,6,7"}] * 2
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        assert list(by_process(entries, name).values()) == [{"3"}] * 2


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="libraries take no more threads than there are cores")
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_torch_takes_as_many_threads_as_its_process_was_given(noted, monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", str(3 - threads))
    (_, found) = noted(Dask(DaskParams(workers=1, threads=threads)), "torch")
    assert found["torch"] == {"says": threads, "started": threads - 1}


@pytest.mark.parametrize(("gpus", "sees"), [(0, ""), (1, "0")])
def test_a_task_of_the_local_cluster_sees_the_first_gpu_or_none(noted, gpus, sees):
    entries = noted(Slurm(SlurmParams(cluster="local", gpus=gpus, threads=2, look=0.1)), "fine")
    assert list(by_process(entries, "CUDA_VISIBLE_DEVICES").values()) == [{sees}]
    assert list(by_process(entries, "OMP_NUM_THREADS").values()) == [{"2"}]
