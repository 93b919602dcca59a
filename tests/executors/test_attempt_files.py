"""A unit that ends the process of a serial run: the next one says so, tries it last, and gives it up after three."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import deeds
import pytest

from equivengine.runtime.engine import resume
from equivengine.runtime.registry import Registry
from equivengine.store import open_run
from equivengine_plugins.executors import attempt_files
from equivengine_plugins.executors.attempt_files import FOLDER, AttemptFiles
from equivengine_plugins.executors.serial import Serial

_RUN = """
import json, sys
import deeds
from equivengine_plugins.executors.serial import Serial

batches = deeds.batches(*json.loads(sys.argv[2]))
work = deeds.Deeds(sys.argv[1], tuple((unit.unit_id, unit.probe) for batch in batches for unit in batch))
executor = Serial()
executor.on_caution = lambda text: print("caution:", text)
executor.map(work, batches, on_done=lambda batch, outcomes: print(batch[0].probe, outcomes[0].outcome, flush=True))
"""


@pytest.fixture
def serial(work, tmp_path):
    """Carry out deeds in a process of their own, as a command does; its exit code and what it said, line by line."""

    def run(*names):
        work(deeds.batches(*names))  # its folder, and the import path
        command = [sys.executable, "-c", _RUN, str(tmp_path / "results"), json.dumps(names)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout.splitlines()

    return run


@pytest.fixture
def folder(tmp_path):
    """Where attempts are told of."""
    return tmp_path / "results" / FOLDER


@pytest.mark.parametrize(
    ("deed", "code", "cause"),
    [
        ("exit 3", 3, "was killed, or left by os._exit"),
        ("crash", -11, "was ended by a crash: Segmentation fault in string_at ("),
    ],
)
def test_the_next_process_says_what_ended_the_last(serial, deed, code, cause):
    assert serial(deed) == (code, [])
    found, (caution,) = serial(deed)
    assert found == code
    assert caution.startswith(f"caution: a process of this run died in the middle of {deed} {deed}-0 (m): it {cause}")


def test_a_unit_that_ends_processes_comes_last_and_is_given_up_after_three(serial, folder, tmp_path):
    names = ("wait 0", "signal SIGKILL", "wait 0.1")
    assert serial(*names) == (-9, [])
    for death in (1, 2):
        code, (caution, *done) = serial(*names)
        assert code == -9
        assert f"({death} of 3 before it counts as failed). It is tried again after all other units" in caution
        assert done == ["wait 0 skipped", "wait 0.1 published" if death == 1 else "wait 0.1 skipped"]
        assert len(list(folder.iterdir())) == death + 1
    code, (caution, *done) = serial(*names)
    assert code == 0
    assert "after 3 deaths the unit is recorded as failed" in caution
    assert done == ["wait 0 skipped", "wait 0.1 skipped", "signal SIGKILL failed"]
    (failure,) = [entry for entry in deeds.log(tmp_path / "results") if "failed" in entry]
    assert failure["error_type"] == "WorkerLost"
    assert failure["message"].startswith("the process of this unit died 3 times")
    # Given up is not forgotten: it still comes last, and has three more processes.
    assert serial(*names) == (-9, ["wait 0 skipped", "wait 0.1 skipped"])
    assert len(list(folder.iterdir())) == 2


def test_a_unit_that_ends_one_process_and_not_the_next_leaves_nothing(serial, folder):
    code, said = serial("once", "wait 0")
    assert (code, said) == (-9, [])
    code, (caution, *done) = serial("once", "wait 0")
    assert (code, done) == (0, ["wait 0 published", "once published"])
    assert "(1 of 3" in caution
    assert not folder.exists()


def test_a_process_that_lives_is_not_taken_for_dead_nor_its_file(work, carry_out, folder, tmp_path):
    work(deeds.batches("wait 60"))
    command = [sys.executable, "-c", _RUN, str(tmp_path / "results"), json.dumps(["wait 60"])]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as other:
        while not deeds.log(tmp_path / "results"):
            time.sleep(0.02)
        (before,) = folder.iterdir()
        beside = AttemptFiles(str(tmp_path / "results"))
        assert not beside.cautions()
        assert len(list(folder.iterdir())) == 2
        beside.close()
        assert list(folder.iterdir()) == [before]
        other.kill()
    files = AttemptFiles(str(tmp_path / "results"))
    assert len(files.cautions()) == 1
    files.close()
    assert list(folder.iterdir()) == [before]


def test_ctrl_c_and_errors_are_no_deaths(carry_out, interrupt, folder):
    interrupt(1)
    with pytest.raises(KeyboardInterrupt):
        carry_out(Serial(), "wait 30")
    assert not folder.exists()


def tell(folder, **changes):
    """Leave what a process leaves that was killed in the middle of the first deed."""
    folder.mkdir(exist_ok=True)
    facts = {"host": os.uname().nodename, "boot": attempt_files._boot(), "killed": attempt_files.killed_for_memory()}
    ((unit,),) = deeds.batches("fine")
    entry = {**facts, "unit": unit.unit_id, "words": "fine fine-0 (m)", **changes}
    (folder / os.urandom(8).hex()).write_text(json.dumps(entry) + "\n")


def test_a_machine_that_went_down_is_no_death(work, folder):
    directory = work([]).directory
    tell(folder, boot="another")
    AttemptFiles(directory).close()
    assert not folder.exists()
    tell(folder, boot="another", host="elsewhere")
    files = AttemptFiles(directory)
    assert len(files.cautions()) == 1
    files.close()


def test_that_the_kernel_has_run_out_of_memory_is_said(carry_out, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(attempt_files, "killed_for_memory", lambda: 4)
    (tmp_path / "results").mkdir(exist_ok=True)
    for _ in range(3):
        tell(folder, killed=3)
    ((_, (outcome,)),), _ = carry_out(Serial(), "fine")
    assert (outcome.outcome, outcome.error_type) == ("failed", "OutOfMemory")
    assert "the kernel has run out of memory since" in outcome.message


@pytest.mark.parametrize("text", ["", "{", "[]", '{"unit": "x"}', "\0" * 100])
def test_what_is_no_account_of_a_batch_is_taken_away(work, folder, text):
    directory = work([]).directory
    folder.mkdir()
    (folder / "odd").write_text(text)
    files = AttemptFiles(directory)
    assert not files.cautions()
    files.close()
    assert not folder.exists()


def test_it_costs_next_to_nothing(work):
    """At most 0.5 ms of CPU time for each batch: 0.5% of units of 0.1 s."""
    batches = deeds.batches(*["fine"] * 200)
    files = AttemptFiles(work([]).directory)
    start = time.process_time()
    for batch in batches:
        with files.begun(batch):
            pass
    seconds = time.process_time() - start
    files.close()
    assert seconds / len(batches) < 5e-4


def test_without_locks_it_is_one_error(work, monkeypatch):
    import fcntl

    from equivengine.errors import StoreError

    def flock(file, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    directory = work([]).directory
    with pytest.raises(StoreError, match="cannot be kept") as caught:
        AttemptFiles(directory)
    assert "No locks available" in str(caught.value)
    assert os.listdir(directory) == [FOLDER]


def test_a_full_disk_is_one_error_before_anything_is_computed(work, monkeypatch):
    from equivengine.errors import StoreError

    def full(*arguments):
        raise OSError(28, "No space left on device")

    directory = work([]).directory
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(StoreError, match="no room to write"):
        AttemptFiles(directory)


def test_a_disk_that_fills_up_later_is_left_to_the_store(carry_out, monkeypatch, folder):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    ((_, (outcome,)),), _ = carry_out(Serial(), "fine")
    assert outcome.outcome == "published"
    assert not folder.exists()


def test_a_run_goes_on_after_a_probe_that_ended_its_process(site, tmp_path, monkeypatch):
    """The whole way: a command dies in the middle of a unit, and what resumes the run finishes all the others."""
    site.install("toys", module="equivengine_toys")
    site.install(
        "lethal",
        """
        import os

        import equivengine as eqv

        EQUIVENGINE_API = (1, 0)

        class Lethal(eqv.Probe[eqv.Params]):
            name = "lethal"
            version = "1"
            summary = "ends its process at the second image"

            def run(self, task):
                if task.sample_ids[0] == os.environ.get("LETHAL"):
                    os._exit(7)
                return eqv.ProbeResult({}, {"one": eqv.Scalar(1.0, "1", "one")})

        @eqv.hookimpl
        def equivengine_register_probes():
            return [Lethal]
        """,
    )
    names = ["toys", "lethal", "noise", "serial"]
    monkeypatch.setenv("EQUIVENGINE_PLUGINS", ",".join(names))
    monkeypatch.setenv("LETHAL", "noise-000001")
    out = tmp_path / "run"
    command = ["probe", "--plugin", "lethal", "--model", "toy", "--images", "noise:3?size=8&mode=L", "--out", str(out)]
    command = [sys.executable, "-m", "equivengine", *command]
    first = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert first.returncode == 7, first.stderr
    (file,) = (out / FOLDER).iterdir()
    for copy in "bc":  # two more processes
        (out / FOLDER / copy).write_bytes(file.read_bytes())
    registry = Registry.load(only=names)
    said = []
    report = resume(out, registry=registry, on_caution=said.append)
    assert report.outcomes["failed"] == 1
    assert report.outcomes["published"] + report.outcomes["skipped"] == 2
    assert report.cautions == said
    assert "died in the middle of lethal noise-000001 (toy)" in said[0]
    with open_run(out) as run:
        (failure,) = run.failures.values()
    assert failure.error_type == "WorkerLost"
    assert "died 3 times" in failure.message
    monkeypatch.delenv("LETHAL")  # mended
    report = resume(out, registry=registry)
    assert +report.outcomes == {"skipped": 2, "published": 1}
    assert not report.cautions
    assert not (out / FOLDER).exists()
