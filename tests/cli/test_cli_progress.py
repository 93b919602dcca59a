"""Rate and remaining time: near the truth where units differ in cost, are there already, or are computed together."""

from __future__ import annotations

import io
import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivengine.cli import progress as progress_module
from equivengine.cli.pace import FIRST_SECONDS, FIRST_UNITS, Pace, clock_time, rate
from equivengine.cli.progress import Bar, JsonLines, Lines
from equivengine.contracts.unit import SampleRef, Unit, UnitOutcome

UNIT = Unit("measure", "1", "{}", "toy", "w", (SampleRef("folder:x", 0, "a.png", "d"),), 0, "fp32")


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self):
        return self.now


def units(count, **changes):
    return [replace(UNIT, seed=seed, **changes) for seed in range(count)]


def done(unit, seconds=1.0, outcome="published"):
    return unit, UnitOutcome(unit.unit_id, outcome, "why" if outcome == "failed" else "", seconds)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress_module, "Pace", lambda todo, batches=(): Pace(todo, batches, made))
    return made


def run_serially(pace, clock, todo, seconds):
    for unit in todo:
        clock.now += seconds
        pace.unit_done(*done(unit, seconds))


def test_units_of_equal_cost_give_the_exact_rest():
    clock, todo = Clock(), units(10)
    pace = Pace(10, [(unit,) for unit in todo], clock)
    assert (pace.seconds_left, pace.seconds_per_unit, pace.words()) == (None, None, "")
    run_serially(pace, clock, todo[:4], 30.0)
    assert (pace.seconds_left, pace.seconds_per_unit) == (180.0, 30.0)
    assert pace.words() == "30.0 s/unit, 0:03:00 left"
    clock.now += 20  # while the fifth is computed
    assert pace.seconds_left == 160.0
    assert pace.seconds_per_unit == 30.0
    clock.now += 1000  # longer than expected: never below zero
    assert pace.seconds_left == 0.0
    run_serially(pace, clock, todo[4:], 30.0)
    assert pace.seconds_left == 0.0


def test_probes_of_different_cost_are_told_apart():
    """A global mean would say 4 units at 1 s = 4 s; the four that are left take 100 s each."""
    clock = Clock()
    cheap, dear = units(8), units(5, probe="match")
    pace = Pace(13, [(unit,) for unit in (*cheap, *dear)], clock)
    run_serially(pace, clock, cheap, 1.0)
    assert pace.seconds_left == pytest.approx(5.0)  # nothing is known of the dear ones yet
    run_serially(pace, clock, dear[:1], 100.0)
    assert pace.seconds_left == pytest.approx(400.0)


def test_a_model_that_was_not_measured_counts_as_its_probe_on_others():
    clock = Clock()
    cheap, dear, other = units(4), units(4, probe="match"), units(4, probe="match", model="other")
    pace = Pace(12, [(unit,) for unit in (*cheap, *dear, *other)], clock)
    run_serially(pace, clock, cheap, 1.0)
    run_serially(pace, clock, dear, 50.0)
    assert pace.seconds_left == pytest.approx(200.0)


def test_units_that_are_there_already_do_not_count():
    clock, todo = Clock(), units(10)
    pace = Pace(10, [(unit,) for unit in todo], clock)
    for unit in todo[:4]:
        pace.unit_done(*done(unit, 0.0, "skipped"))
    assert (pace.seconds_left, pace.seconds_per_unit, pace.finished) == (None, None, 4)
    run_serially(pace, clock, todo[4:7], 10.0)
    assert pace.seconds_left == pytest.approx(30.0)
    assert pace.seconds_per_unit == 10.0


def test_units_side_by_side_take_their_share():
    """Four workers, 40 s each: ten seconds of wall time for each unit."""
    clock, todo = Clock(), units(16)
    pace = Pace(16, [(unit,) for unit in todo], clock)
    for start in (0, 4):
        clock.now += 40
        for unit in todo[start : start + 4]:
            pace.unit_done(*done(unit, 40.0))
    assert pace.seconds_left == pytest.approx(80.0)
    assert pace.seconds_per_unit == pytest.approx(10.0)


def test_units_computed_together_count_when_the_last_has_come():
    clock, todo = Clock(), units(12)
    pace = Pace(12, [tuple(todo[:6]), tuple(todo[6:])], clock)
    clock.now += 60
    for unit in todo[:5]:
        pace.unit_done(*done(unit, 10.0))
        assert pace.seconds_left is None
    pace.unit_done(*done(todo[5], 10.0))
    assert pace.seconds_left == pytest.approx(60.0)
    clock.now += 45
    assert pace.seconds_left == pytest.approx(15.0)
    assert pace.finished == 6


def test_the_first_estimate_comes_after_a_few_units_or_seconds():
    clock, todo = Clock(), units(10)
    pace = Pace(10, [(unit,) for unit in todo], clock)
    run_serially(pace, clock, todo[: FIRST_UNITS - 1], 0.5)
    assert pace.seconds_left is None
    run_serially(pace, clock, todo[FIRST_UNITS - 1 : FIRST_UNITS], 0.5)
    assert pace.seconds_left == pytest.approx(3.5)
    slow = Pace(10, (), clock)
    run_serially(slow, clock, todo[:1], FIRST_SECONDS)
    assert slow.seconds_left == pytest.approx(9 * FIRST_SECONDS)


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["published", "failed", "skipped"]),
            st.sampled_from([0.0, 1e-9, 1.0, 1e6]),
            st.sampled_from([0.0, 1e-9, 1.0]),
            st.integers(0, 3),
        ),
        max_size=12,
    ),
    todo=st.integers(0, 14),
    size=st.integers(0, 3),
)
def test_no_course_of_events_breaks_it(events, todo, size):
    clock = Clock()
    every = [replace(UNIT, seed=seed, probe="ab"[seed % 2]) for seed in range(12)]
    pace = Pace(todo, [tuple(every[at : at + size]) for at in range(0, 12, size)] if size else (), clock)
    for unit, (outcome, seconds, passed, _) in zip(every, events, strict=False):
        clock.now += passed
        pace.unit_done(*done(unit, seconds, outcome))
        assert pace.seconds_left is None or pace.seconds_left >= 0
        assert pace.failed <= pace.finished
        pace.words()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (-1, "0:00:00"), (59.6, "0:01:00"), (3725.4, "1:02:05"), (86400 * 4, "96:00:00")],
)
def test_times_are_hours_minutes_and_seconds(seconds, text):
    assert clock_time(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, ""), (0.5, "120 units/min"), (0.002, "30,000 units/min"), (90, "90.0 s/unit")]
)
def test_the_rate_is_the_larger_number(seconds, text):
    assert rate(seconds) == text


def test_lines_show_rate_rest_and_failures(clock, capsys):
    todo = units(6)
    with Lines() as progress:
        progress.start(Path("run"), 6, 0, [(unit,) for unit in todo])
        for place, unit in enumerate(todo):
            clock.now += 100
            progress.unit_done(*done(unit, 100.0, "failed" if place == 1 else "published"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "[1/6] measure a.png: published (100.0 s; 100.0 s/unit, 0:08:20 left)"
    assert lines[2] == "[2/6] measure a.png: failed (100.0 s; 100.0 s/unit, 0:06:40 left; 1 failed)"
    assert lines[-1] == "[6/6] measure a.png: published (100.0 s; 1 failed)"


def test_a_name_of_two_lines_stays_on_its_line(clock, capsys):
    (unit,) = units(1, samples=(SampleRef("folder:x", 0, "a\nb.png", "d"),))
    with Lines() as lines:
        lines.start(Path("run"), 1, 0, [[unit]])
        lines.unit_done(*done(unit))
    assert capsys.readouterr().err.splitlines()[1].startswith("[1/1] measure a\\nb.png: published (1.0 s")


def test_lines_say_that_units_are_computed_together(clock, capsys):
    todo = units(8)
    with Lines() as progress:
        progress.start(Path("run"), 9, 1, [tuple(todo[:5]), tuple(todo[5:])])
    said = capsys.readouterr().err
    assert said == "9 units, 1 of them published already, up to 5 computed together; results go to run\n"


def test_json_events_hold_the_same_numbers(clock, capsys):
    todo = units(4)
    with JsonLines() as progress:
        progress.start(Path("run"), 4, 0, [(unit,) for unit in todo])
        for unit in todo:
            clock.now += 2
            progress.unit_done(*done(unit, 2.0, "failed"))
    _, first, _, third, last = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["seconds_left"], first["seconds_per_unit"], first["failed"]) == (None, 2.0, 1)
    assert (third["seconds_left"], third["finished"], third["todo"], third["failed"]) == (2.0, 3, 4, 3)
    assert (last["seconds_left"], last["elapsed_seconds"]) == (0.0, 8.0)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Lines, "[4/8] at work, 0:05:00 since the last unit; 0:01:40 left"),
        (JsonLines, '"event": "at_work", "silent_seconds": 300.0, "finished": 4, "todo": 8'),
    ],
)
def test_a_long_silence_is_broken(clock, capsys, kind, says):
    """As while units are computed together: nothing finishes for minutes."""
    todo = units(8)
    said = ""
    with kind(patience=0.01) as progress:
        progress.start(Path("run"), 8, 0, [tuple(todo[:4]), tuple(todo[4:])])
        clock.now += 400
        for unit in todo[:4]:
            progress.unit_done(*done(unit, 100.0))
        clock.now += 300
        deadline = time.monotonic() + 30
        while says not in said and time.monotonic() < deadline:
            time.sleep(0.01)
            said += capsys.readouterr().err
    assert says in said
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Lines, "[1/4] measure a.png and 2 computed together with it: running for 0:02:00; 0:04:00 left"),
        (JsonLines, '"running_seconds": 120.0'),
    ],
)
def test_a_long_batch_is_named_that_runs_in_this_process(clock, monkeypatch, capsys, kind, says):
    monkeypatch.setattr(progress_module.time, "monotonic", clock)
    todo = units(4)
    said = ""
    with kind(patience=0.01) as progress:
        progress.start(Path("run"), 4, 0, [tuple(todo[:1]), tuple(todo[1:])])
        progress.batch_begun(tuple(todo[:1]))
        clock.now += 120
        progress.unit_done(*done(todo[0], 120.0))
        progress.batch_begun(tuple(todo[1:]))
        clock.now += 120
        for _ in range(3000):
            said += capsys.readouterr().err
            if says in said:
                break
            time.sleep(0.01)
    assert says in said
    if kind is JsonLines:
        event = next(json.loads(line) for line in said.splitlines() if says in line)
        assert event["unit_ids"] == [unit.unit_id for unit in todo[1:]]


def test_a_run_tells_what_it_has_begun(measure, cli, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(Lines, "batch_begun", lambda self, batch: begun.append([unit.samples[0].id for unit in batch]))
    measure("--progress", "plain", probe="together")
    assert begun == [["a.png", "b.png", "c.png"]]
    cli("resume", tmp_path / "run", "--progress", "plain")
    assert len(begun) == 1, "what is published is not begun"


def test_the_bar_shows_how_long_a_slow_unit_has_run_and_what_it_is(clock, monkeypatch):
    monkeypatch.setattr(progress_module.time, "monotonic", clock)
    (unit,) = units(1)
    bar = Bar()
    bar._progress.console.quiet = True
    bar.start(Path("run"), 1, 0, [(unit,)])
    bar.batch_begun((unit,))
    assert bar._words() == ""
    assert bar._progress.tasks[0].fields["last"] == "a.png"
    clock.now += 61
    assert bar._words() == "this one for 0:01:01"


def test_the_bar_shows_rate_rest_and_failures_and_leaves_the_cursor(clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "160", "LINES": "30"}.items():
        monkeypatch.setenv(name, value)
    todo = units(6)
    with Bar() as bar:
        bar.start(Path("run"), 6, 0, [(unit,) for unit in todo])
        for unit in todo[:3]:
            clock.now += 20
            bar.unit_done(*done(unit, 20.0, "failed"))
        bar._progress.refresh()
    said = stream.getvalue()
    assert "20.0 s/unit, 0:01:00 left" in said
    assert "3 failed" in said
    assert "3/6" in said
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")  # the cursor is shown again


def test_a_resumed_run_counts_what_is_left(measure, cli, photos, tmp_path):
    (photos / "b.png").write_bytes(b"no image")
    measure(code=3)
    said = cli("resume", tmp_path / "run", "--progress", "json", code=3)
    start, event = (json.loads(line) for line in said.err.splitlines() if line.startswith("{"))
    assert (start["units"], start["published"]) == (3, 2)
    assert (event["finished"], event["todo"], event["failed"]) == (1, 1, 1)


def test_units_computed_together_are_announced(measure):
    said = measure("--progress", "plain", probe="together")
    assert "3 units, up to 3 computed together" in said.err
    assert "[3/3] together c.png: published" in said.err
