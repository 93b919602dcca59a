"""Runs from the command line that are interrupted and go on elsewhere, and units that no process survives."""

from __future__ import annotations

import json
import signal
import time

import pytest

from equivengine.store import content_digest, open_run

pytestmark = pytest.mark.slow

SLURM = ("--executor", "slurm", "--set-executor", "cluster=local", "--set-executor", "look=0.2")
DASK = ("--executor", "dask", "--set-executor", "workers=2")


@pytest.fixture
def here(toys, tmp_path, monkeypatch):
    """An empty directory, in which only what the runs need is loaded."""
    monkeypatch.setenv("EQUIVENGINE_PLUGINS", "toys,noise,serial,dask,slurm,jsonl_log")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def measure(out, *options):
    given = ("--plugin", "measure", "--model", "toy", "--images", "noise:16?size=8&mode=L", "--out", out)
    return ("probe", *given, *options)


def digest(path):
    with open_run(path) as run:
        return content_digest(run)


def interrupted(process, run, published, mark):
    """Interrupt a run once so many units are published; what it said."""
    while len(list(run.glob("shards/*/*.h5"))) < published:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "equivengine resume run" in said
    assert "Traceback" not in said
    assert mark() == []
    assert list(run.rglob("tmp.*")) == []
    return len(list(run.glob("shards/*/*.h5")))


def test_a_run_that_is_interrupted_on_two_executors_and_finished_on_a_third_has_the_same_content(here, start, mark):
    slow = ("--set", "seconds=0.4")
    undisturbed = start(*measure("undisturbed", *slow))
    out, said = undisturbed.communicate(timeout=240)
    assert undisturbed.returncode == 0, out + said
    run = here / "run"
    serial = interrupted(start(*measure("run", *slow)), run, 2, mark)
    dask = interrupted(start("resume", "run", *DASK), run, serial + 2, mark)
    assert serial < dask < 16
    last = start("resume", "run", *SLURM, "--set-executor", "tasks=2")
    out, said = last.communicate(timeout=240)
    assert last.returncode == 0, out + said
    assert sorted(path.name for path in here.iterdir() if path.name not in ("run", "undisturbed")) == []
    assert digest(run) == digest(run / "run.h5") == digest("undisturbed")
    with open_run(run) as finished:
        names = [record.provenance["executor"]["name"] for record in finished.units()]
    assert {"serial", "dask", "slurm"} == set(names)
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    told = [event["unit_id"] for event in events if event["event"] == "unit_finished"]
    assert len(told) == len(set(told)) >= 12, "observers hear of each unit once, from the parent"


def test_ctrl_c_ends_a_slurm_array(here, start, mark):
    interrupted(start(*measure("run", "--set", "seconds=1", *SLURM)), here / "run", 1, mark)
    assert not (here / "run" / "slurm").exists()


@pytest.mark.parametrize(("executor", "goes_on"), [(DASK, False), (SLURM, True)], ids=["dask", "slurm"])
def test_when_the_command_is_killed_its_processes_end_and_tasks_of_slurm_go_on(here, start, mark, executor, goes_on):
    run = here / "run"

    def published():
        return len(list(run.glob("shards/*/*.h5")))

    def wait_for(condition):
        deadline = time.monotonic() + 200
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    process = start(*measure("run", "--set", "seconds=1", *executor))
    wait_for(lambda: published() >= 2)
    process.kill()
    process.communicate()
    wait_for(lambda: mark() == [])
    assert (published() == 16) == goes_on
    last = start("resume", "run")
    out, said = last.communicate(timeout=240)
    assert last.returncode == 0, out + said
    with open_run(run / "run.h5") as finished:
        assert len(finished.published) == 16
    assert list(run.rglob("tmp.*")) == []


@pytest.mark.parametrize("executor", [DASK, SLURM], ids=["dask", "slurm"])
def test_a_unit_that_no_process_survives_fails_alone_and_says_why(here, site, start, mark, executor):
    site.install(
        "deadly",
        """
        import os, signal
        import equivengine as eqv

        EQUIVENGINE_API = (1, 0)

        class Deadly(eqv.Probe[eqv.Params]):
            name, version, summary = "deadly", "1", "dies on one image"

            def run(self, task):
                if task.sample_ids[0].endswith("3"):
                    os.kill(os.getpid(), signal.SIGSEGV)
                return eqv.ProbeResult({}, {"one": eqv.Scalar(1.0, "1", "one")})

        @eqv.hookimpl
        def equivengine_register_probes():
            return [Deadly]
        """,
    )
    names = "deadly,toys,noise,serial,dask,slurm"
    given = ("--plugin", "deadly", "--model", "toy", "--images", "noise:6?size=8&mode=L", "--out", "run")
    process = start("probe", *given, *executor, EQUIVENGINE_PLUGINS=names)
    out, said = process.communicate(timeout=240)
    assert process.returncode == 3, out + said
    assert "Segmentation" not in out
    with open_run("run") as run:
        (failure,) = run.failures.values()
        assert len(run.published) == 5
    assert failure.unit.samples[0].id.endswith("3")
    assert failure.error_type == "Signal"
    assert "died 3 times, at last with nothing beside it: it was killed by SIGSEGV" in failure.message
    assert failure.message in said
    assert mark() == []
