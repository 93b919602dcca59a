"""What is yes or no of each unit: a share with Wilson's interval, wherever units are taken together."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from run_cases import published, unit, write_run
from test_leaderboard import Headlines

from equivengine.contracts.result import ProbeResult, Scalar
from equivengine.report.comparison import compare
from equivengine.report.comparison_page import write_comparison
from equivengine.report.gathering import gather
from equivengine.report.leaderboard import leaderboard
from equivengine.report.leaderboard_page import table_of, write_page
from equivengine.report.page import write_report
from equivengine.report.spread import spreads
from equivengine.report.summary import condense, sections_of
from equivengine.runtime.registry import from_environment
from equivengine.statistics import difference_of_shares, wilson
from equivengine.store import open_run


def took(value):
    return Scalar(value, "1", "taken for the target", group="predicted class", binary=True)


def answers(values, start=0, **options):
    return [
        (unit(start + place, **options), ProbeResult({}, {"slope": took(value)})) for place, value in enumerate(values)
    ]


@pytest.fixture
def opened(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(*runs):
            paths = [write_run(tmp_path / f"run{place}", *entries) for place, entries in enumerate(runs)]
            return [stack.enter_context(open_run(path)) for path in paths]

        yield make


def rows_of(run):
    ((section,), _) = condense(run)
    return section, {row.name: row for row in section.rows}


def test_over_units_stands_the_share_with_its_interval(opened):
    (run,) = opened(answers([1, 1, 0, 1, 0, 0, 0, 1, 1, 1, np.nan]))
    row = rows_of(run)[1]["slope"]
    assert (row.value, row.n, row.kind) == (0.6, 10, "share")
    assert row.interval == wilson(6, 10)
    assert (row.shown, row.shown_unit, row.shown_interval("95% interval")) == ("0.6", "share", "0.3127 .. 0.8318")


def test_few_units_have_an_interval_too_and_it_is_told_from_min_and_max(opened):
    (run,) = opened(answers([1, 1, 1]))
    section, rows = rows_of(run)
    assert section.interval == "min .. max"
    assert rows["slope"].interval == wilson(3, 3)
    assert rows["slope"].shown_interval(section.interval).endswith("(95%)")


def test_units_of_one_image_are_no_independent_answers(opened):
    seeds = [(unit(0, seed=seed), ProbeResult({}, {"slope": took(1)})) for seed in range(20)]
    (run,) = opened(seeds + answers([1, 0], start=1))
    row = rows_of(run)[1]["slope"]
    assert (row.value, row.n) == (pytest.approx(21 / 22), 22)
    assert row.interval == pytest.approx(wilson(3 * 21 / 22, 3))


@pytest.mark.parametrize(("value", "word"), [(1, "yes"), (0, "no"), (np.nan, "-")])
def test_one_unit_answers_in_a_word(opened, value, word):
    (run,) = opened(answers([value]))
    section, rows = rows_of(run)
    assert (rows["slope"].kind, rows["slope"].shown, rows["slope"].interval) == ("answer", word, None)
    assert section.scalars()["slope"].binary


def test_none_that_could_tell_is_no_share(opened):
    (run,) = opened(answers([np.nan] * 3))
    row = rows_of(run)[1]["slope"]
    assert (row.n, row.interval, row.shown) == (0, None, "-")


def test_units_stored_without_the_kind_are_taken_along_and_other_numbers_are_not(opened):
    old = [(unit(place), published(float(place % 2))) for place in range(4)]
    mixed, other = opened(old + answers([1, 1], start=4), [(unit(9), published(0.5)), *answers([1, 1])])
    assert rows_of(mixed)[1]["slope"].value == pytest.approx(4 / 6)
    assert rows_of(mixed)[1]["slope"].kind == "share"
    assert (rows_of(other)[1]["slope"].kind, rows_of(other)[1]["slope"].value) == ("", 1.0)


def test_distributions_leave_them_out(opened):
    (run,) = opened(answers([1, 0] * 20))
    ((_, group),) = sections_of(gather(run))
    assert spreads(group, {"slope": "taken"}) == []


def test_models_are_compared_by_shares_on_the_same_images(opened):
    first, second = [1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0, 0]
    (found,) = compare(opened(answers(first) + answers(second, model="second")))
    (line,) = found.lines
    assert (line.share, line.shown_unit) == (True, "share")
    assert [cell.row.interval for cell in line.cells] == [wilson(5, 8), wilson(2, 8)]
    against = line.cells[1].difference
    assert (against.value, against.ratio, against.n, against.larger) == (-0.375, None, 8, 0)
    assert against.interval == difference_of_shares(np.array(second), np.array(first))
    assert str(against).startswith("- 0.375 (-0.6")


def test_seeds_of_an_image_are_one_observation_with_its_share(opened):
    seeds = [(unit(0, seed=seed), ProbeResult({}, {"slope": took(seed == 0)})) for seed in range(4)]
    (found,) = compare(opened(seeds + answers([1, 1], start=1) + answers([1] * 3, model="second")))
    row = found.lines[0].cells[0].row
    assert (row.value, row.n) == (pytest.approx(2.25 / 3), 3)
    assert row.interval == pytest.approx(wilson(2.25, 3))
    assert found.lines[0].cells[1].difference.value == pytest.approx(0.25)


def test_classes_have_shares(opened):
    labelled = [(unit(k, label="cat" if k % 2 else "dog", probe="knows"), published(float(k))) for k in range(8)]
    runs = opened(labelled, answers([1, 0, 1, 0, 1, 0, 1, 1]) + answers([0] * 8, model="second"))
    (found,) = compare(runs, per_class=True)
    cats, dogs = found.classes
    assert [cats.cells[0].middle.value, dogs.cells[0].middle.value] == [0.25, 1.0]
    assert cats.cells[0].middle.ends == wilson(1, 4)
    assert (cats.shown_unit, cats.cells[1].difference.value) == ("share", -0.25)


def test_a_leaderboard_has_shares(opened):
    board = leaderboard(opened(answers([1, 1, 0, 1]) + answers([0], model="second")), Headlines())
    (metric,) = board.metrics
    assert (metric.share, metric.shown_unit) == (True, "share")
    (first,), (second,) = (row.entries for row in board.rows)
    assert (first.value, first.kind, first.n, first.interval) == (0.75, "95%", 4, wilson(3, 4))
    assert (second.value, second.interval, second.n) == (0, None, 1)
    assert table_of(board).columns[7].description.endswith("; share of yes")


def test_pages_say_share_and_answers_stay_out_of_documents_as_words(opened, tmp_path):
    (run,) = opened(answers([1, 1, 0]) + answers([1], model="second"))
    registry = from_environment()
    pages = [tmp_path / name for name in ("report.html", "compare.html", "board.html")]
    write_report(run, registry, pages[0])
    write_comparison([run], registry, pages[1])
    write_page(leaderboard([run], Headlines()), [], pages[2])
    report, comparison, board = (page.read_text() for page in pages)
    assert "0.2077 .. 0.9385 (95%)" in report
    assert "<strong>yes</strong>" in report
    assert "; share of yes over 3 images." in report
    assert '<td class="unit">share</td>' in report
    assert '<td class="unit">share</td>' in comparison
    assert '<span class="faint">share</span>' in board
    json.dumps([row.value for row in rows_of_all(run)], allow_nan=False)


def rows_of_all(run):
    return [row for section in condense(run)[0] for row in section.rows]
