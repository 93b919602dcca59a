"""Columns of a comparison: paired differences, classes, and what stands between them and a fair one."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from run_cases import PROVENANCE, published, unit, write_run

from equivengine.errors import UsageError
from equivengine.report.comparison import compare
from equivengine.store import open_run


@pytest.fixture
def compared(tmp_path):
    def make(*runs, **options):
        with contextlib.ExitStack() as stack:
            paths = [write_run(tmp_path / f"run{place}", *entries) for place, entries in enumerate(runs)]
            return compare([stack.enter_context(open_run(path)) for path in paths], **options)

    return make


def units(values, start=0, **options):
    return [(unit(start + place, **options), published(value)) for place, value in enumerate(values)]


def test_differences_are_against_the_first_column_on_the_same_images(compared):
    first, second = np.array([1.0, 10, 100, 1000, 5, 50, 500, 7]), np.array([1.1, 11, 110, 1100, 5.5, 55, 550, 7.7])
    (found,) = compared(units(first) + units(second, model="second"))
    (line,) = found.lines
    assert line.cells[0].difference is None
    difference = line.cells[1].difference
    assert difference.value == pytest.approx(np.median(second - first))
    assert (difference.n, difference.larger) == (8, 8)
    assert difference.ratio == pytest.approx(1.1)
    assert difference.clear
    # The medians lie within each other's interval: without pairing nothing could be said.
    assert line.cells[0].row.interval[0] < line.cells[1].row.value < line.cells[0].row.interval[1]
    assert found.cautions == []


def test_images_that_only_one_has_are_in_no_difference(compared):
    (found,) = compared(units([1.0, 2, 3]) + units([5.0, 6, 7], start=1, model="second"))
    assert found.lines[0].cells[1].difference.n == 2
    assert "not on the same images: 2 of 4 are common to all columns" in found.cautions
    assert "first: 3 images: in place of 95% intervals stand smallest and largest" in found.cautions


def test_columns_without_a_common_image_say_so(compared):
    (found,) = compared(units([1.0]) + units([5.0], start=4, model="second"))
    assert found.lines[0].cells[1].difference.n == 0
    said = " ".join(found.cautions)
    assert "no image is common to all columns: only medians over different images stand side by side" in said
    assert "first: one image: its intervals are of the measurement, and say nothing of other images" in said


def test_units_that_failed_or_are_missing_are_counted(compared, tmp_path):
    entries = units([1.0] * 6) + units([2.0] * 5, model="second") + [(unit(5, model="second"), "no luck")]
    (found,) = compared(entries)
    assert "second: 1 of 6 units failed, and is in no number" in found.cautions
    assert found.columns[1].section.failed == 1
    path = write_run(tmp_path / "missing", *units([1.0] * 6, model="third"), missing=[unit(7, model="third")])
    with open_run(path) as third, open_run(tmp_path / "run0") as first:
        (found,) = compare([third, first])
    assert f"{path}: 1 unit of the plan is missing, and in no number" in found.cautions


def test_several_units_of_an_image_are_one_observation(compared):
    seeds = [(unit(0, seed=seed), published(100.0 + seed)) for seed in range(3)]
    (found,) = compared(seeds + units([1.0, 2.0], start=1) + units([1.0] * 3, model="second"))
    row = found.lines[0].cells[0].row
    assert (row.value, row.n) == (2.0, 3)
    assert found.lines[0].cells[1].difference.n == 3
    assert "first: 5 units of 3 images: the median of each counts once" in found.cautions


def test_pairs_with_other_targets_are_named(compared):
    first = [(unit(place, 9), published(1.0)) for place in range(6)]
    second = [(unit(place, 8 if place < 2 else 9, model="second"), published(1.0)) for place in range(6)]
    (found,) = compared(first + second)
    assert "second has other targets than first for 2 of its originals: pairs are paired by their originals" in (
        found.cautions
    )


def test_lengths_in_an_embedding_are_not_compared_silently(compared):
    entries = [(unit(0, model=m), published(1.0, unit="embedding / pixel")) for m in ("first", "second")]
    (found,) = compared(entries)
    assert any(caution.startswith("numbers in units of the embedding have its scale") for caution in found.cautions)


def test_classes_that_one_probe_knows_hold_for_the_images_of_another(compared):
    labelled = [(unit(k, label="cat" if k % 2 else "dog", probe="knows"), published(float(k))) for k in range(14)]
    slopes = units(range(14)) + units(range(1, 15), model="second")
    (found,) = compared(labelled, slopes, per_class=True)
    assert [(line.label, line.name) for line in found.classes] == [("cat", "slope"), ("dog", "slope")]
    cats = found.classes[0].cells
    assert (cats[0].middle.value, cats[0].middle.n) == (np.median(range(1, 14, 2)), 7)
    assert (cats[1].difference.value, cats[1].difference.n) == (1.0, 7)


def test_an_image_of_two_labels_belongs_to_no_class(compared):
    known = [(unit(k, label="cat", probe="knows"), published(0.0)) for k in range(3)]
    known.append((unit(0, label="dog", probe="knows", seed=1), published(0.0)))
    (found,) = compared(known, units([1.0, 2, 3]) + units([1.0, 2, 3], model="second"), per_class=True)
    assert [(line.label, line.cells[0].middle.n) for line in found.classes] == [("cat", 2)]


def test_without_labels_there_are_no_classes(compared):
    with pytest.raises(UsageError, match="no class of any image is known"):
        compared(units([1.0]) + units([1.0], model="second"), per_class=True)


def test_few_images_of_both_have_no_interval_and_that_is_said(compared):
    (found,) = compared(units(range(1, 9)) + units(range(1, 9), start=5, model="second"))
    against = found.lines[0].cells[1].difference
    assert (against.n, against.interval, against.clear) == (3, (-5, -5), False)
    assert found.columns[1].interval == "95% interval"
    assert (
        "second against first: 3 images of both: beside ratios and differences stand smallest and largest, in place of "
        "95% intervals"
    ) in found.cautions


def test_inputs_of_several_kinds_are_named(compared):
    text = {**PROVENANCE, "model": {**PROVENANCE["model"], "input_unit": "coordinate"}}
    second = [(*entry, text) for entry in units([5.0] * 6, model="second")]
    (found,) = compared(units([1.0] * 6) + second)
    said = "inputs are of several kinds (pixel, coordinate): lengths of changes, and what is per unit, differ"
    assert said in found.cautions


def test_the_same_units_with_the_same_numbers_are_one_column(compared, tmp_path):
    first = units([1.0, np.nan, 3])
    (found,) = compared(first, first, units([5.0, 6, 7], model="second"))
    assert [column.label for column in found.columns] == ["first", "second"]
    assert found.cautions[0] == (
        f"{tmp_path / 'run0'} and {tmp_path / 'run1'} both hold 3 units of first, with the same numbers: "
        "they count once"
    )


def test_runs_that_are_the_same_are_nothing_to_compare(compared):
    with pytest.raises(UsageError, match="there is nothing to compare") as caught:
        compared(units([1.0]), units([1.0]))
    assert "both hold 1 unit of first, with the same numbers: it counts once" in caught.value.got


def test_the_same_units_with_other_numbers_are_two_columns(compared):
    (found,) = compared(units([1.0, 2, 3]), units([1.0, 2, 4]))
    assert [column.label for column in found.columns] == ["first, run0", "first, run1"]
    assert "both hold 3 units of first, 1 of them with other numbers: they stand in two columns" in found.cautions[0]


def test_a_unit_with_another_scalar_has_other_numbers(compared):
    (found,) = compared(units([1.0]), [(unit(0), published(1.0, "another"))])
    assert "both hold 1 unit of first, with other numbers: it stands in two columns" in found.cautions[0]


def test_units_that_two_runs_share_among_others_stay_in_both(compared):
    (found,) = compared(units([1.0, 2, 3]), units([2.0, 3, 4], start=1))
    assert len(found.columns) == 2
    assert "both hold 2 units of first, with the same numbers: they stand in two columns" in found.cautions[0]


def test_runs_of_one_model_on_other_images_share_no_unit(compared):
    (found,) = compared(units([1.0]), units([1.0], start=4))
    assert not any("both hold" in caution for caution in found.cautions)
