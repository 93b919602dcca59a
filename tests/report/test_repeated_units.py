"""Units that two runs hold: what is said, which result stands, and that results that exclude each other are refused."""

from __future__ import annotations

import contextlib

import pytest
from run_cases import PROVENANCE, published, unit, write_run
from test_leaderboard import Headlines

from equivengine.errors import StoreError
from equivengine.report.comparison import compare
from equivengine.report.leaderboard import leaderboard
from equivengine.report.leaderboard_page import _places
from equivengine.store import open_run


def units(values, start=0, half_width=None, **options):
    return [
        (
            unit(start + place, **options),
            published(value, interval=None if half_width is None else (value - half_width, value + half_width)),
        )
        for place, value in enumerate(values)
    ]


@pytest.fixture
def opened(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(*runs):
            paths = [write_run(tmp_path / f"run{place}", *entries) for place, entries in enumerate(runs)]
            return [stack.enter_context(open_run(path)) for path in paths]

        yield make


def said_of(runs):
    board = leaderboard(runs, Headlines())
    return [caution for caution in board.cautions if "both hold" in caution], board


def test_a_leaderboard_says_which_runs_share_how_many_units(opened, tmp_path):
    said, _ = said_of(opened(units([1.0, 2, 3]), units([2.0, 3, 4], start=1), units([9.0], start=7)))
    assert said == [
        f"slopes: {tmp_path / 'run0'} and {tmp_path / 'run1'} both hold 2 units of first: they count once, with the "
        "same numbers"
    ]


def test_other_numbers_are_said_and_those_of_the_first_run_stand(opened, tmp_path):
    said, board = said_of(opened(units([1.0, 2, 3]), units([1.0, 2, 4])))
    assert said[0].endswith(f"they count once, 1 of them with other numbers: those of {tmp_path / 'run0'} stand")
    assert board.rows[0].entries[0].value == 2.0


def test_a_third_run_is_told_once(opened):
    said, _ = said_of(opened(units([1.0, 2]), units([1.0, 2]), units([1.0, 2, 3])))
    assert len(said) == 2


def test_runs_that_share_nothing_say_nothing(opened):
    said, _ = said_of(opened(units([1.0]), units([1.0], start=3), units([1.0], model="second")))
    assert not said


@pytest.mark.parametrize("ask", [lambda runs: leaderboard(runs, Headlines()), compare], ids=["leaderboard", "compare"])
def test_intervals_that_exclude_each_other_are_refused(opened, tmp_path, ask):
    runs = opened(units([1.0, 2, 3], half_width=0.1), units([1.0, 2, 3.5], half_width=0.1))
    with pytest.raises(StoreError, match=r"run0 and .*run1 contradict each other") as caught:
        ask(runs)
    assert "intervals apart in 1; 2.png" in caught.value.got
    assert "slope = 3 (2.9 .. 3.1) and 3.5 (3.4 .. 3.6)" in caught.value.got
    assert "leave the other run out" in caught.value.hint


@pytest.mark.parametrize("ask", [lambda runs: leaderboard(runs, Headlines()), compare], ids=["leaderboard", "compare"])
def test_numbers_within_each_others_intervals_are_none(opened, ask):
    assert ask(opened(units([1.0, 2, 3], half_width=0.1), units([1.0, 2, 3.05], half_width=0.1)))


def test_units_of_several_kinds_of_inputs_are_each_models_own(opened):
    text = {**PROVENANCE, "model": {**PROVENANCE["model"], "input_unit": "coordinate"}}
    first = [(unit(k), published(1.0 + k, unit="embedding / pixel", description="per pixel")) for k in range(6)]
    second = [
        (
            unit(k, model="second"),
            published(5.0 + k, unit="embedding / coordinate", description="per coordinate"),
            text,
        )
        for k in range(6)
    ]
    labelled = [(unit(k, label="cat", probe="knows"), published(1.0)) for k in range(6)]
    runs = opened(first + second + labelled)
    (found,) = compare(runs, per_class=True)
    (cats,) = found.classes
    assert (cats.shown_unit, [cell.unit for cell in cats.cells]) == (
        "",
        ["embedding / pixel", "embedding / coordinate"],
    )
    assert cats.cells[1].difference is None
    (line,) = found.lines
    assert (line.mixed, line.shown_unit, line.description) == (True, "", "per pixel; per coordinate")
    assert [cell.row.shown_unit for cell in line.cells] == ["embedding / pixel", "embedding / coordinate"]
    assert [(cell.at, cell.difference) for cell in line.cells] == [(None, None)] * 2
    board = leaderboard(runs, Headlines())
    assert [row.entries[0].shown_unit(board.metrics[0]) for row in board.rows] == ["", "embedding / coordinate"]
    places = [place.at for place, _ in _places([row.entries[0] for row in board.rows])]
    assert places[0] is not None
    assert places[1] is None
