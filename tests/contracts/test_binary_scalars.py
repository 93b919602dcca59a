"""Scalars that are yes or no: what they may hold, and that they stay so through store, tables and JSON."""

from __future__ import annotations

import json
import math
import pickle

import h5py
import pytest

from equivengine.contracts.result import ProbeResult, Scalar
from equivengine.contracts.unit import SampleRef, Unit
from equivengine.errors import PluginError
from equivengine.store import RunDirectory, content_digest, inspect_run, open_run, record, refusal

UNIT = Unit("asks", "1", "{}", "toy", "0" * 64, (SampleRef("folder:x", 0, "a.png", "0" * 64),), 0, "fp32")
PLAN = {"units": [UNIT.to_json()], "config": {}}


def yes(value=1.0, **options):
    return Scalar(value, "1", "taken for the target", binary=True, **options)


@pytest.mark.parametrize("value", [0, 1, True, False, 0.0, math.nan])
def test_yes_no_and_not_told_are_binary(value):
    assert str(yes(value)) == {1: "yes", 0: "no"}.get(value, "-")


@pytest.mark.parametrize("value", [0.5, 2, -1, math.inf])
def test_anything_else_is_refused(value):
    with pytest.raises(PluginError, match="'taken for the target' is neither yes nor no") as caught:
        yes(value)
    assert caught.value.expected == "1 (yes), 0 (no), or NaN where it could not be told"


@pytest.mark.parametrize("options", [{"interval": (0.2, 1.0)}, {"unit": "pixel"}])
def test_one_answer_has_neither_interval_nor_unit(options):
    with pytest.raises(PluginError, match="has what an answer has not"):
        Scalar(**{"value": 1.0, "unit": "1", "description": "taken", "binary": True, **options})


@pytest.fixture
def stored(tmp_path):
    directory = RunDirectory.create_or_open(tmp_path / "run", PLAN, "digest")
    directory.publish(UNIT, ProbeResult({}, {"took": yes(), "slope": Scalar(1.0, "1", "slope")}), {})
    directory.consolidate()
    return directory.path


def test_it_is_stored_and_read_as_such(stored):
    assert not inspect_run(stored).findings
    for path in (stored, stored / "run.h5"):
        with open_run(path) as run:
            summary = run.units()[0].summary
            assert (summary["took"], summary["slope"].binary) == (yes(), False)
            assert {name: column.binary for name, column in run.summary("asks").items()} == {
                "took": True,
                "slope": False,
            }
    with h5py.File(stored / "run.h5") as file:
        assert file["summary/asks/took"].attrs["kind"] == b"binary"
        assert "kind" not in file["summary/asks/slope"].attrs
        entries = json.loads(file[f"units/{UNIT.unit_id}/record"][()])["summary"]
    assert [entry.get("binary") for entry in entries] == [True, None]


def test_the_digest_of_content_knows_the_kind(stored, tmp_path):
    plain = RunDirectory.create_or_open(tmp_path / "plain", PLAN, "digest")
    one = Scalar(1.0, "1", "taken for the target")
    plain.publish(UNIT, ProbeResult({}, {"took": one, "slope": Scalar(1.0, "1", "slope")}), {})
    with open_run(stored) as run, open_run(plain.path) as other:
        assert content_digest(run) != content_digest(other)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({"binary": 1}, id="binary of 1"),
        pytest.param({"value": 0.5}, id="half"),
        pytest.param({"interval": [0.0, 1.0]}, id="interval"),
        pytest.param({"unit": "pixel"}, id="unit"),
    ],
)
def test_a_stored_one_that_is_neither_is_damage(entry):
    text = record.Record.of(UNIT, ProbeResult({}, {"took": yes()}), {}).to_text()
    data = json.loads(text)
    data["summary"][0] |= entry
    with pytest.raises(refusal.Refused, match="this file"):
        record.parse(json.dumps(data), "this file")


def test_it_crosses_processes_and_keeps_its_kind_in_other_words():
    result = pickle.loads(pickle.dumps(ProbeResult({}, {"took": yes()}))).in_unit("coordinate")
    assert result.summary["took"].binary
