"""What image sets know of a sample is stored with the units that it is the subject of."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from equivengine import open_run
from equivengine.contracts.unit import Unit
from equivengine.runtime import inputs
from equivengine.runtime.engine import execute
from equivengine.runtime.loading import Workbench, load_images


@pytest.fixture
def adorned(monkeypatch):
    """Give every sample details; returns what to call with them."""

    def adorn(details):
        original = Workbench.sample
        monkeypatch.setattr(Workbench, "sample", lambda self, ref: replace(original(self, ref), details=details))

    return adorn


def stored(report):
    with open_run(report.directory) as run:
        return [record.provenance["samples"] for record in run.units()]


def test_details_of_shipped_images_are_stored_as_the_set_gives_them(registry, make_config):
    report = execute(make_config(images=["samples"], limit=2), registry=registry)
    given = [dict(sample.details) for sample in load_images("samples", registry=registry)][:2]
    assert all({"license", "licence", "title"} & set(details) for details in given)
    assert [samples[0]["details"] for samples in stored(report)] == json.loads(json.dumps(given))


def test_pairs_have_those_of_both_and_sets_none(registry, make_config, adorned):
    adorned({"by": ["a", 1, None], "where": {"x": 0.5}})
    pairs = stored(execute(make_config("difference"), registry=registry))
    assert [[set(sample) for sample in pair] for pair in pairs] == [[set(pairs[0][0])] * 2] * len(pairs)
    assert pairs[0][1]["details"] == {"by": ["a", 1, None], "where": {"x": 0.5}}


def test_they_are_no_part_of_what_a_unit_is(registry, make_config, make_plan, adorned):
    before = [unit.unit_id for unit in make_plan("measure").units]
    adorned({"by": "somebody"})
    units: list[Unit] = list(make_plan("measure").units)
    assert [unit.unit_id for unit in units] == before
    assert "details" not in json.dumps([unit.to_json() for unit in units])


@pytest.mark.parametrize(
    ("details", "message"),
    [
        pytest.param({"when": object()}, "cannot be stored", id="an object"),
        pytest.param({"where": float("nan")}, "cannot be stored", id="NaN"),
        pytest.param({"text": "x" * inputs.MAX_DETAILS_BYTES}, "too long to be stored", id="too long"),
    ],
)
def test_what_cannot_be_stored_fails_its_units_before_they_are_computed(
    registry, make_config, adorned, details, message
):
    adorned(details)
    report = execute(make_config(), registry=registry)
    assert report.outcomes["published"] == 0
    assert len(report.failures) == 3
    assert all(message in outcome.message for _, outcome in report.failures)
