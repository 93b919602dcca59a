"""bench/unit_kills.py kills only what may be killed; bench/results/ holds what bench/executors.py promises."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import unit_kills  # noqa: E402  bench/ is on the path only now

KEPT = sorted((ROOT / "bench" / "results").glob("executors-*.json"))


@pytest.fixture
def process():
    """A process that does nothing."""
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        yield sleeping
        sleeping.kill()


@pytest.fixture
def killer(tmp_path):
    """One that never waits, and a way to write into what it reads."""
    made = unit_kills.Killer(tmp_path / "log", 0.0, random.Random(0))

    def note(what, batch, pid, slot=1):
        with open(tmp_path / "log", "a") as log:
            log.write(json.dumps({"what": what, "slot": slot, "batch": batch, "pid": pid}) + "\n")

    made.note = note
    return made


def test_a_process_that_has_published_nothing_yet_is_left_alone(killer, process):
    killer.strike()
    killer.note("begun", "a", process.pid)
    killer.strike()
    assert (killer.kills, process.poll()) == (0, None)


def test_a_process_that_has_published_is_killed_in_the_middle_of_its_next_batch(killer, process):
    killer.note("begun", "a", None)
    killer.note("done", "a", process.pid)
    killer.strike()
    assert (killer.kills, process.poll()) == (0, None), "nothing was under way"
    killer.note("begun", "b", process.pid)
    killer.strike()
    assert killer.kills == 1
    assert process.wait(10) == -signal.SIGKILL
    killer.strike()
    killer.note("died", "b", process.pid)
    killer.note("begun", "b", process.pid)
    killer.strike()
    assert killer.kills == 1, "the process that comes in its place has published nothing"
    assert killer.deaths == {"b": 1}


def test_a_batch_that_has_lost_two_processes_keeps_the_third(killer, process):
    for _ in range(2):
        killer.note("begun", "b", 1)
        killer.note("died", "b", 1)
    killer.note("done", "a", process.pid)
    killer.note("begun", "b", process.pid)
    killer.strike()
    assert (killer.kills, process.poll()) == (0, None)
    killer.note("begun", "c", process.pid)
    killer.strike()
    assert killer.kills == 1


def test_a_process_that_got_on_between_looking_and_killing_goes_on(killer, process, monkeypatch):
    """It is stopped first; what it was at by then decides."""
    killer.note("done", "a", process.pid)
    killer.note("begun", "b", process.pid)
    catch_up, looks = killer._catch_up, []

    def later():
        if looks:
            killer.note("done", "b", process.pid)
        looks.append(1)
        catch_up()

    monkeypatch.setattr(killer, "_catch_up", later)
    killer.strike()
    assert (killer.kills, process.poll()) == (0, None)
    assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T", "not left stopped"


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept_results_hold_what_is_promised(path):
    import executors

    document = json.loads(path.read_text())
    assert document["complete"]
    assert {row["case"] for row in document["results"]} == set(executors.CASES)
    assert all(executors.held(row, document["units"]) for row in document["results"])
