"""A row for each model, a column for each headline: what is pooled, what is empty and why, what is said first."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from run_cases import PROVENANCE, published, scalar, unit, write_run

from equivengine.contracts.result import ProbeResult
from equivengine.errors import UsageError
from equivengine.report.leaderboard import leaderboard
from equivengine.report.leaderboard_page import table_of
from equivengine.store import open_run


class Headlines:
    """In place of the presenter: the probe ``slopes`` names its slope."""

    remarks = ()

    def probe_of(self, unit):
        return unit.probe

    def headlines(self, probe, params, name):
        return {"slopes": {"slope": "the slope"}, "sets": {"rate": "the rate"}}.get(name, {})


@pytest.fixture
def board(tmp_path):
    made = []

    def make(*runs, **options):
        with contextlib.ExitStack() as stack:
            made.append(runs)
            folder = tmp_path / str(len(made))
            paths = [write_run(folder / f"run{place}", *entries) for place, entries in enumerate(runs)]
            opened = [stack.enter_context(open_run(path)) for path in paths]
            return leaderboard(opened, Headlines(), **options)

    return make


def units(values, start=0, **options):
    return [(unit(start + place, **options), published(value)) for place, value in enumerate(values)]


def test_a_cell_is_the_median_over_images_with_its_interval(board):
    found = board(units(range(1, 10)) + units([5.0] * 9, model="second"))
    assert [(metric.key, metric.title) for metric in found.metrics] == [("slopes.slope", "the slope")]
    assert [row.model for row in found.rows] == ["first", "second"]
    (first,), (second,) = (row.entries for row in found.rows)
    assert (first.value, first.n, first.kind) == (5.0, 9, "95%")
    assert first.interval[0] < 5 < first.interval[1]
    assert (second.value, second.interval) == (5.0, (5.0, 5.0))
    assert found.rows[0].size == (5, 64)
    assert not found.cautions


def test_runs_are_pooled_and_equal_units_count_once(board):
    found = board(units([1.0, 2.0, 3.0]), units([2.0, 3.0, 9.0, 9.0], start=1))
    (row,) = found.rows
    assert row.entries[0].value == np.median([1.0, 2.0, 3.0, 9.0, 9.0])
    assert (row.entries[0].n, row.entries[0].units, len(row.runs)) == (5, 5, 2)
    assert row.entries[0].kind == "min .. max"
    assert row.entries[0].interval == (1.0, 9.0)
    assert "fewer than 6 images of first" in " ".join(found.cautions)


def test_seeds_of_one_image_count_once(board):
    entries = [(unit(0, seed=seed), published(100.0)) for seed in range(5)] + units([1.0, 2.0], start=1)
    (row,) = board(entries).rows
    assert (row.entries[0].value, row.entries[0].n, row.entries[0].units) == (2.0, 3, 7)


def test_an_empty_cell_says_why(board):
    nan = float("nan")
    found = board(
        units([1.0] * 2)
        + units([1.0], model="others", params={"eps": 2})
        + [(unit(0, model="failing"), "no luck\nat all"), (unit(1, model="failing"), "no luck\nat all")]
        + units([nan, nan], model="blind")
        + [(unit(0, model="elsewhere", probe="sets"), published(1.0, "rate"))]
        + [(unit(0, model="lacking"), published(1.0, "other"))]
    )
    why = {row.model: row.entries[0].why for row in found.rows}
    assert why == {
        "first": "",
        "others": "slopes ran with other parameters",
        "failing": "all 2 units failed: no luck",
        "blind": "none of 2 units could measure it",
        "elsewhere": "slopes did not run",
        "lacking": "its units do not have this number",
    }
    assert [metric.key for metric in found.metrics][:2] == ["slopes.slope [eps=null]", "slopes.slope [eps=2]"]


def test_what_failed_or_did_not_converge_is_counted(board):
    entries = units([1.0] * 6)
    entries[0] = (entries[0][0], published(1.0, status="not_converged", message="more steps"))
    found = board([*entries, (unit(9), "no luck")])
    (entry,) = found.rows[0].entries
    assert (entry.units, entry.not_converged, entry.failed) == (6, 1, 1)
    (again,) = board(entries, entries).rows[0].entries
    assert (again.units, again.not_converged) == (6, 1)
    assert "slopes: 1 of 7 units of first failed, and is in no number" in found.cautions
    assert "slopes: 1 of 6 units of first did not converge; it is in the numbers" in found.cautions


def test_a_failure_counts_once_and_not_where_another_run_succeeded(board):
    failed = [(unit(6), "no luck"), (unit(7), "no luck")]
    found = board(units([1.0] * 6) + failed, [*units([2.0], start=7), failed[0]])
    (entry,) = found.rows[0].entries
    assert (entry.units, entry.failed) == (7, 1)


def test_models_that_saw_other_images_are_not_compared_silently(board):
    runs = [units(range(8)) + units(range(10, 18), start=2, model="second")]
    found = board(*runs)
    assert found.cautions == [
        "slopes: the models did not see the same images; 6 of 10 are common to all (--common takes only these)"
    ]
    common = board(*runs, common=True)
    assert [row.entries[0].n for row in common.rows] == [6, 6]
    assert [row.entries[0].value for row in common.rows] == [np.median(range(2, 8)), np.median(range(10, 16))]
    apart = board(units(range(3)) + units(range(3), start=5, model="second"), common=True)
    assert [row.entries[0].why for row in apart.rows] == ["no image in common"] * 2


def test_a_set_shows_the_interval_of_its_own_measurement(board):
    result = ProbeResult({}, {"rate": scalar(0.5, "share", interval=(0.2, 0.8), n=8, group="pairs matched")})
    found = board([(unit(0, probe="sets"), result)])
    (entry,) = found.rows[0].entries
    assert (entry.value, entry.interval, entry.kind, entry.n) == (0.5, (0.2, 0.8), "measurement", 8)
    assert found.metrics[0].description == "pairs matched: share"


def test_random_weights_the_reference_path_and_two_weights_are_marked(board):
    slow = {"extension": {"available": False, "loaded": False, "reason": "not built"}}
    found = board(
        [(unit(0), published(1.0), {"random_weights": True})],
        [(unit(0, weights_digest="9" * 64), published(2.0), slow)],
    )
    assert [(row.random, row.reference_path) for row in found.rows] == [(True, False), (False, True)]
    said = " ".join(found.cautions)
    assert "first stands there with several weights" in said
    assert "random weights, which say nothing about a trained model: first" in said
    assert "reference path, no compiled kernels: first" in said


def test_columns_can_be_asked_for_by_name(board):
    entries = [(unit(0, probe="silent"), published(3.0, "depth", description="how deep"))]
    with pytest.raises(UsageError, match="there is nothing for a leaderboard"):
        board(entries)
    found = board(entries, scalars=["silent.depth"])
    assert [(metric.key, metric.title) for metric in found.metrics] == [("silent.depth", "how deep")]
    with pytest.raises(UsageError, match="stores no scalar 'width'"):
        board(entries, scalars=["silent.width"])
    with pytest.raises(UsageError, match=r"--scalar takes PROBE\.NAME"):
        board(entries, scalars=["depth"])


def test_rows_are_sorted_by_a_column_and_empty_ones_come_last(board):
    entries = units([1.0]) + units([3.0], model="second") + units([2.0], model="third")
    entries.append((unit(0, model="failing"), "no luck"))
    found = board(entries, sort="slopes.slope")
    assert [row.model for row in found.rows] == ["second", "third", "first", "failing"]
    with pytest.raises(UsageError, match="no column 'slope' to sort by"):
        board(entries, sort="slope")


def test_what_is_missing_is_said(tmp_path):
    path = write_run(tmp_path / "run", *units([1.0] * 6), missing=[unit(8), unit(9)])
    with open_run(path) as run:
        assert leaderboard([run], Headlines()).cautions == [
            f"{path}: 2 units of the plan are missing, and in no number"
        ]


def test_the_table_has_a_row_for_each_model_and_says_why_a_cell_is_empty(board):
    found = board([*units([1.0, 3.0]), (unit(0, model="failing"), "no luck")])
    table = table_of(found)
    columns = {
        column.name: list(values) for column, values in zip(table.columns, zip(*table.rows, strict=True), strict=True)
    }
    assert columns["model"] == ["first", "failing"]
    assert columns["slopes.slope"] == [2.0, None]
    assert (columns["slopes.slope.low"], columns["slopes.slope.high"]) == ([1.0, None], [3.0, None])
    assert columns["slopes.slope.interval"] == ["min .. max", None]
    assert columns["slopes.slope.failed"] == [0, 1]
    assert columns["slopes.slope.why"] == [None, "its one unit failed: no luck"]


def test_a_probe_that_ran_in_another_precision_or_version_says_so(board):
    others = units([1.0], model="second", precision="bf16") + units([1.0], model="third", probe_version="2")
    why = {row.model: row.entries[0].why for row in board(units([1.0]) + others).rows}
    assert why["second"] == "slopes ran in another precision: bf16"
    assert why["third"] == "slopes ran in another version: 2"


def test_one_image_is_not_called_a_range_of_few(board):
    entries = [(unit(0), published(2.0, interval=(1.0, 3.0), n=40))]
    found = board(entries)
    (entry,) = found.rows[0].entries
    assert (entry.kind, entry.interval, entry.n) == ("measurement", (1.0, 3.0), 40)
    assert found.cautions == [
        "slopes: one image of first: its intervals are of the measurement, and say nothing of other images"
    ]


def test_models_of_several_kinds_of_input_are_named(board):
    text = {**PROVENANCE, "model": {**PROVENANCE["model"], "input_unit": "coordinate"}}
    found = board(units([1.0] * 6) + [(*entry, text) for entry in units([5.0] * 6, model="second")])
    assert any(said.startswith("slopes: inputs are of several kinds (pixel, coordinate)") for said in found.cautions)
