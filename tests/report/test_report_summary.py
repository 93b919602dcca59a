"""What a summary says over units: medians, honest intervals, the worst of each check, and what to know first."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivengine.contracts.result import Check, Picture, ProbeResult, Scalar
from equivengine.contracts.unit import SampleRef, Unit
from equivengine.report.summary import ENOUGH, _check, count_pictures, summarise
from equivengine.store import RunDirectory, open_run

PROVENANCE = {
    "random_weights": False,
    "extension": {"available": True, "loaded": True, "reason": "loaded"},
    "operations": {"layer_norm": {"cpu-avx2": 3}},
    "device": {"type": "cpu", "name": "a processor"},
}


def unit(seed=0, samples=1, **options):
    refs = tuple(SampleRef("folder:x", seed, f"{seed}-{k}.png", f"{seed}{k}") for k in range(samples))
    given = {"probe": "ldlc", "probe_version": "1", "params": "{}", "model": "digits", "precision": "fp32", "seed": 0}
    return Unit(**{**given, "weights_digest": "w" * 64, "samples": refs, **options})


@pytest.fixture
def sections(tmp_path):
    """Publish (unit, result, provenance) triples and summarize them."""

    def make(*triples):
        plan = {"units": [u.to_json() for u, _, _ in triples]}
        directory = RunDirectory.create_or_open(tmp_path / "run", plan, "digest")
        for published, result, provenance in triples:
            directory.publish(published, result, {**PROVENANCE, **provenance})
        with open_run(directory.path) as run:
            return summarise(run)

    return make


def scalar(value, **options):
    return Scalar(value, "1/px", "a slope", **options)


def of(values, **provenance):
    return [(unit(k), ProbeResult({}, {"slope": scalar(v)}), provenance) for k, v in enumerate(values)]


def test_sections_of_one_probe_are_told_apart_by_what_differs(sections):
    result = ProbeResult({}, {"slope": scalar(1.0)})
    rates = [unit(params=f'{{"rate":{rate},"steps":9}}') for rate in (0.1, 0.01)]
    others = [unit(model="other", params=rates[0].params), unit(probe="spectrum", params=rates[0].params)]
    found = sections(*((one, result, {}) for one in (*rates, *others)))
    assert [section.setting for section in found] == ["rate=0.1", "rate=0.01", "", ""]
    assert [section.name for section in found] == ["ldlc, rate=0.1", "ldlc, rate=0.01", "ldlc", "spectrum"]


def test_one_unit_shows_its_own_interval_and_count(sections):
    (section,) = sections((unit(), ProbeResult({}, {"slope": scalar(2.0, interval=(1, 3), n=40, group="g")}), {}))
    (row,) = section.rows
    assert (row.value, row.interval, row.n, row.unit, row.group) == (2.0, (1.0, 3.0), 40, "1/px", "g")
    assert section.interval == "95% interval"
    assert not section.over_units


def test_few_units_show_median_smallest_and_largest(sections):
    (section,) = sections(*of([5.0, 1.0, 2.0]))
    (row,) = section.rows
    assert (row.value, row.interval, row.n) == (2.0, (1.0, 5.0), 3)
    assert section.interval == "min .. max"


def test_many_units_show_a_bootstrap_interval_of_the_median(sections):
    values = np.arange(31.0)
    (section,) = sections(*of(values))
    (row,) = section.rows
    assert section.interval == "95% interval"
    assert row.value == 15.0
    low, high = row.interval
    assert 5 <= low < 15 < high <= 25
    assert row.n == 31


@given(st.integers(2, 30))
def test_smallest_and_largest_hold_the_median_often_enough_from_six_on(n):
    assert (1 - 2 * 0.5**n >= 0.95) == (n >= ENOUGH)


def test_what_could_not_be_measured_does_not_count(sections):
    (section,) = sections(*of([math.nan, 3.0, math.nan]))
    assert (section.rows[0].value, section.rows[0].interval, section.rows[0].n) == (3.0, None, 1)


def test_what_nobody_could_measure_is_nan(sections):
    (section,) = sections(*of([math.nan, math.inf]))
    assert math.isnan(section.rows[0].value)
    assert section.rows[0].n == 0


def test_scalars_that_only_some_units_have_are_shown(sections):
    first = (unit(0), ProbeResult({}, {"a": scalar(1.0)}), {})
    second = (unit(1), ProbeResult({}, {"a": scalar(2.0), "b": scalar(7.0)}), {})
    (section,) = sections(first, second)
    assert [(row.name, row.n) for row in section.rows] == [("a", 2), ("b", 1)]


def test_probes_models_parameters_and_precisions_are_kept_apart(sections):
    units = [unit(), unit(model="b"), unit(probe="spectrum"), unit(params='{"a":1}'), unit(precision="fp64"), unit(1)]
    found = sections(*[(u, ProbeResult({}, {"slope": scalar(1.0)}), {}) for u in units])
    assert [section.units for section in found] == [2, 1, 1, 1, 1]
    assert found[3].params == {"a": 1}


@pytest.mark.parametrize(("samples", "noun"), [(1, "image"), (2, "pair"), (5, "set")])
def test_units_are_called_what_they_are(sections, samples, noun):
    (section,) = sections((unit(samples=samples), ProbeResult({}, {}), {}))
    assert section.noun == noun


def test_warnings_name_their_share(sections):
    a, b, c = of([1.0, 2.0, 3.0])
    bad = ProbeResult({}, {}, status="not_converged", message="raise steps")
    no_extension = {"available": False, "loaded": False, "reason": "not built\n  next: make"}
    (section,) = sections((*a[:2], {"random_weights": True}), (b[0], bad, {}), (*c[:2], {"extension": no_extension}))
    assert section.warnings == [
        "random weights: this says nothing about a trained model (1 of 3 units)",
        "reference path, no compiled kernels: not built (1 of 3 units)",
        "not converged: raise steps (1 of 3 units)",
    ]


def test_a_precision_that_the_model_does_not_keep_is_a_warning(sections):
    a, b, c = of([1.0, 2.0, 3.0])
    places = {"fp32": [], "fp64": ["norm (Norm): float32", "head.norm (Norm): float32"]}
    stored = ({"narrowed": places}, {"narrowed": {"fp32": [], "fp64": []}}, {"narrowed": "of another program's making"})
    (section,) = sections(*((*each[:2], provenance) for each, provenance in zip((a, b, c), stored, strict=True)))
    assert section.warnings == [
        "fp64 is not kept throughout the model: norm (Norm): float32, and 1 more; what rests on it goes no further "
        "than that (1 of 3 units)"
    ]


def test_an_extension_that_was_there_and_not_needed_is_no_warning(sections):
    idle = {"extension": {"available": True, "loaded": False, "reason": "present; not used yet"}, "operations": {}}
    (section,) = sections((unit(), ProbeResult({}, {}), idle))
    assert section.warnings == []
    assert section.facts["kernels"] == "torch"


def test_facts_name_every_device_that_took_part(sections):
    a, b = of([1.0, 2.0])
    (section,) = sections(a, (*b[:2], {"device": {"type": "cuda", "name": "a GPU"}}))
    assert section.facts["device"] == "a processor; a GPU"


@pytest.mark.parametrize(
    ("checks", "passed", "worst", "at_most"),
    [
        ([Check.at_most(1, 5, "c"), Check.at_most(4, 5, "c")], 2, 4, True),
        ([Check.at_most(1, 5, "c"), Check.at_most(6, 5, "c")], 1, 6, True),
        ([Check.at_least(9, 5, "c"), Check.at_least(6, 5, "c")], 2, 6, False),
        ([Check.at_least(9, 5, "c"), Check.at_least(1, 5, "c")], 1, 1, False),
        ([Check.at_least(5, 5, "c"), Check.at_least(7, 5, "c")], 2, 5, False),
        ([Check.at_most(math.nan, 5, "c"), Check.at_most(4, 5, "c")], 1, math.nan, True),
        ([Check.at_least(math.nan, 5, "c"), Check.at_least(6, 5, "c")], 1, math.nan, False),
        ([Check.at_most(90, 100, "c"), Check.at_most(2, 1, "c")], 1, 2, True),  # bounds of their own
        ([Check.at_most(50, 100, "c"), Check.at_most(0.9, 1, "c")], 2, 0.9, True),
        ([Check.at_most(0, 0, "c")], 1, 0, True),
    ],
)
def test_a_check_shows_the_value_that_is_closest_to_its_bound_or_beyond(checks, passed, worst, at_most):
    for order in (checks, checks[::-1]):
        row = _check("name", order)
        assert (row.passed, row.total, row.at_most) == (passed, len(checks), at_most)
        assert row.worst == pytest.approx(worst, nan_ok=True)
        assert row.bound in [c.bound for c in checks if c.value == row.worst or math.isnan(row.worst)]


def test_pictures_are_counted_with_the_place_of_their_files(tmp_path):
    grey = Picture(np.zeros((2, 2), np.uint8), "grey")
    plan = {"units": [unit(seed).to_json() for seed in range(3)]}
    directory = RunDirectory.create_or_open(tmp_path / "run", plan, "digest")
    directory.publish(unit(0), ProbeResult({}, {}), PROVENANCE)
    with open_run(directory.path) as run:
        assert count_pictures(run) is None
    directory.publish(unit(1), ProbeResult({}, {}, pictures={"a": grey, "b": grey}), PROVENANCE)
    directory.publish(unit(2), ProbeResult({}, {}, pictures={"a": grey}), PROVENANCE)
    for source in (directory.path, directory.consolidate()):
        with open_run(source) as run:
            assert vars(count_pictures(run)) == {
                "pictures": 3,
                "units": 2,
                "folder": str(tmp_path / "run" / "pictures"),
            }
    alone = shutil.copy(directory.path / "run.h5", tmp_path / "alone.h5")
    (tmp_path / "pictures" / "somebody's").mkdir(parents=True)
    with open_run(alone) as run:
        assert vars(count_pictures(run)) == {"pictures": 3, "units": 2, "folder": None}
