"""The record of a unit: one JSON text, of which every field is looked at before it is believed."""

import json
import math
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_cases import make_plan, make_result, make_unit
from test_store_guard import UNIT, edit, read_everything
from test_store_round_trip import assert_equal_results

from equivengine.contracts.result import Check, ProbeResult, Scalar
from equivengine.errors import PluginError, StoreError
from equivengine.store import (
    RunDirectory,
    content_digest,
    digests,
    files,
    guard,
    inspect_run,
    open_run,
    record,
    schema,
    verify_run,
)
from equivengine.store.record import Record

ARCHIVES = Path(__file__).resolve().parents[1] / "archives"


def change_record(file, change):
    """Put another JSON text in the place of the record of unit 0; it stays canonical."""
    node = file[f"{UNIT}/record"]
    data = json.loads(node[()])
    labels = dict(node.attrs)
    text = change(data) or schema.to_json(data, "a record")
    del file[f"{UNIT}/record"]
    file[f"{UNIT}/record"] = np.bytes_(text)
    for key, value in labels.items():
        file[f"{UNIT}/record"].attrs[key] = value


def field(*path, value):
    """Another value in the place of one field; None takes it away."""

    def change(data):
        *parents, last = path
        for key in parents:
            data = data[key]
        if value is None:
            del data[last]
        else:
            data[last] = value

    return change


SLOPE, MONOTONE = ("summary", 0), ("checks", 0)
WRONG = {
    "no unit": field("unit", value=None),
    "unit": field("unit", value=[]),
    "seed": field("unit", "seed", value=True),
    "samples": field("unit", "samples", value=["digit"]),
    "no status": field("status", value=None),
    "status": field("status", value="fine"),
    "status of another type": field("status", value=["ok"]),
    "message": field("message", value=3),
    "half a character": field("message", value="\ud800"),
    "no provenance": field("provenance", value=None),
    "provenance": field("provenance", value="here"),
    "probe provenance": field("probe_provenance", value=[1]),
    "no summary": field("summary", value=None),
    "summary": field("summary", value={"slope": 1.0}),
    "entry": field("summary", 0, value="slope"),
    "no name": field(*SLOPE, "name", value=None),
    "empty name": field(*SLOPE, "name", value=""),
    "name twice": field(*SLOPE, "name", value="area"),
    "name of another type": field(*SLOPE, "name", value=["slope"]),
    "long name": field(*SLOPE, "name", value="x" * 1001),
    "no value": field(*SLOPE, "value", value=None),
    "value": field(*SLOPE, "value", value="0.25"),
    "value that is true": field(*SLOPE, "value", value=True),
    "value beyond all floats": field(*SLOPE, "value", value=10**400),
    "unit of a scalar": field(*SLOPE, "unit", value=1),
    "long description": field(*SLOPE, "description", value="x" * 60_001),
    "group": field(*SLOPE, "group", value={}),
    "interval": field(*SLOPE, "interval", value=0.5),
    "interval of three": field(*SLOPE, "interval", value=[0.0, 0.5, 1.0]),
    "interval of texts": field(*SLOPE, "interval", value=["0", "1"]),
    "interval that is reversed": field(*SLOPE, "interval", value=[1.0, 0.0]),
    "n": field(*SLOPE, "n", value=7.0),
    "n that is true": field(*SLOPE, "n", value=True),
    "n of 65 bits": field(*SLOPE, "n", value=1 << 64),
    "checks": field("checks", value={}),
    "passed": field(*MONOTONE, "passed", value=1),
    "no bound": field(*MONOTONE, "bound", value=None),
    "description of a check": field(*MONOTONE, "description", value=[]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_every_field_of_a_wrong_type_or_size_is_refused(directory, shard_of, name):
    path = shard_of()
    for target, run in ((path, directory.path), (directory.consolidate(),) * 2):
        edit(target, lambda file: change_record(file, WRONG[name]))
        with pytest.raises(StoreError) as caught:
            read_everything(run)
        assert str(target) in str(caught.value)
        assert caught.value.hint
        assert target in verify_run(run)


def test_a_record_that_is_absent_is_refused(directory, shard_of):
    path = shard_of()
    edit(path, lambda file: file.__delitem__(f"{UNIT}/record"))
    with pytest.raises(StoreError, match="has no record"):
        read_everything(directory.path)


def test_fields_of_a_newer_minor_version_are_passed_over_and_kept_in_run_h5(directory, shard_of):
    def add(data):
        data["news"] = {"a": 1}
        data["summary"][0]["quantiles"] = [0.1, 0.9]

    edit(shard_of(), lambda file: change_record(file, add))
    with open_run(directory.path) as run, open_run(directory.consolidate()) as whole:
        for opened in (run, whole):
            assert_equal_results(opened.units()[0].result(), make_result())
    with h5py.File(directory.path / "run.h5") as file:
        assert json.loads(file[f"{UNIT}/record"][()])["news"] == {"a": 1}
    assert not inspect_run(directory.path).findings


def test_a_record_in_another_form_is_read_and_found_by_verify(directory, shard_of):
    path = shard_of()
    edit(path, lambda file: change_record(file, lambda data: json.dumps(data, indent=1)))
    read_everything(directory.path)
    assert "another form" in verify_run(directory.path)[path].got


_floats = st.floats() | st.sampled_from([-0.0, 5e-324, 0.1 + 0.2, math.inf, -math.inf, math.nan])
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)


@st.composite
def _scalars(draw):
    ends = draw(st.none() | st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)))
    interval = None if ends is None else (min(ends), max(ends))
    n = draw(st.none() | st.integers(-(1 << 63) + 1, (1 << 63) - 1))
    return Scalar(draw(_floats), draw(_texts), draw(_texts), interval=interval, n=n, group=draw(_texts))


@settings(max_examples=60, deadline=None)
@given(
    summary=st.dictionaries(_names, _scalars(), max_size=5),
    checks=st.dictionaries(_names, st.builds(Check, st.booleans(), _floats, _floats, _texts), max_size=3),
    message=_texts,
)
def test_what_is_written_is_what_is_read(summary, checks, message):
    given_record = Record.of(make_unit(), ProbeResult({}, summary, checks, message=message), {"host": "here"})
    text = given_record.to_text()
    found = record.parse(text, "here")
    assert found.to_text() == text  # each bit of each number, and all orders
    assert (list(found.summary), list(found.checks)) == (list(summary), list(checks))
    assert all(
        (math.isnan(one.value) and math.isnan(summary[name].value)) or one == summary[name]
        for name, one in found.summary.items()
    )
    assert schema.to_json(json.loads(text), "a record") == text


def test_more_than_a_reader_would_take_is_refused_before_it_is_written(directory, monkeypatch):
    monkeypatch.setattr(schema, "MAX_JSON_VALUES", 1000)
    with pytest.raises(PluginError, match="too many values"):
        directory.publish(make_unit(), ProbeResult({}, {}, provenance={"x": [0] * 1000}), {})
    monkeypatch.setattr(schema, "MAX_TEXT_BYTES", 1000)
    with pytest.raises(PluginError, match="too long"):
        directory.publish(make_unit(), ProbeResult({}, {}, message="x" * 1000), {})
    with pytest.raises(PluginError, match="no valid Unicode"):
        directory.publish(make_unit(), ProbeResult({}, {}, message="\ud800"), {})
    with pytest.raises(PluginError, match="too large"):
        directory.publish(make_unit(), ProbeResult({}, {"x": Scalar(1, "1", "x", n=1 << 63)}), {})
    assert directory.published() == set()


# --------------------------------------------------------------------------------------------- two ways of making files


def test_a_large_result_is_made_on_disk_with_the_content_of_one_made_in_memory(tmp_path, monkeypatch):
    digests = []
    for name, limit in (("memory", 1 << 30), ("disk", 0)):
        monkeypatch.setattr(guard, "IN_MEMORY_BYTES", limit)
        run = RunDirectory.create_or_open(tmp_path / name, make_plan(1), "digest")
        assert run.publish(make_unit(), make_result(size=3000), {})
        assert not inspect_run(run.path).findings
        with open_run(run.path) as opened:
            digests.append(content_digest(opened))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_what_a_disk_gives_back_otherwise_is_not_published(directory, monkeypatch, limit):
    """The second unit of one structure too, of which HDF5 is not asked again."""
    monkeypatch.setattr(guard, "IN_MEMORY_BYTES", limit)
    directory.publish(make_unit(0), make_result(0), {})

    def spoil(path):
        raw = bytearray(path.read_bytes())
        raw[-100] ^= 1
        path.write_bytes(raw)

    write_image, checked_digest = files.write_image, digests.checked_digest
    monkeypatch.setattr(files, "write_image", lambda path, content: (write_image(path, content), spoil(path)))
    monkeypatch.setattr(digests, "checked_digest", lambda path: (spoil(path), checked_digest(path)))
    with pytest.raises(StoreError, match="cannot be read back"):
        directory.publish(make_unit(1), make_result(1), {})
    assert directory.published() == {make_unit(0).unit_id}
    assert not list(directory.path.rglob("tmp.*"))


# ------------------------------------------------------------------------------------------------------------ archives


@pytest.fixture(params=["v1.0", "v1.2", "v2.0", "v2.1"])
def archive(request, tmp_path):
    """A run as that version wrote it: unit 0 published, unit 1 failed, unit 2 missing."""
    return RunDirectory(shutil.copytree(ARCHIVES / request.param, tmp_path / request.param))


def expected(archive, seed=0):
    return make_result(seed, side=0 if archive.path.name == "v1.0" and seed == 0 else 12)


def test_archives_of_every_version_are_read_and_whole(archive):
    version = archive.path.name.removeprefix("v")
    assert f"format equivengine-shard {version}".encode() in next(archive.path.glob("shards/*/*.h5")).read_bytes()[:512]
    found = inspect_run(archive.path)
    assert (found.findings, found.outdated) == ([], False)
    digests = set()
    for source in (archive.path, archive.path / "run.h5"):
        with open_run(source) as run:
            ((unit, result),) = run.results("ldlc")
            assert unit == make_unit(0)
            assert_equal_results(result, expected(archive))
            assert run.units()[0].provenance == {"host": "here"}
            assert [failure.message for failure in run.failures.values()] == ["it broke"]
            assert run.missing == [make_unit(2).unit_id]
            digests.add(content_digest(run))
    assert len(digests) == 1


def test_archives_of_every_version_are_finished_in_this_one_with_equal_content(archive):
    with open_run(archive.path) as run:
        before = content_digest(run)
    with open_run(archive.consolidate()) as run:  # shards of that version in a file of this one
        assert content_digest(run) == before
        assert_equal_results(run.units()[0].result(), expected(archive))
    assert not inspect_run(archive.path).findings
    directory = RunDirectory.create_or_open(archive.path, make_plan(), "digest")
    for seed in (1, 2):
        assert directory.publish(make_unit(seed), make_result(seed), {})
    with open_run(directory.path) as run, open_run(directory.consolidate()) as whole:
        assert content_digest(run) == content_digest(whole)
        for (_, found), seed in zip(whole.results("ldlc"), range(3), strict=True):
            assert_equal_results(found, expected(archive, seed))
    assert not inspect_run(archive.path).findings
    with h5py.File(archive.path / "run.h5") as file:
        assert file.attrs["format-version"].decode() == schema.VERSION_TEXT
        current = schema.VERSION_TEXT.encode()
        assert {file[f"units/{id_}"].attrs["encoding-version"] for id_ in file["units"]} == {current}
        # records of 1.x are written anew, those of 2.x are copied as they are
        kept = b"2.0" if archive.path.name == "v2.0" else current
        assert file[f"units/{make_unit(0).unit_id}/record"].attrs["encoding-version"] == kept
        assert all("record" in file[f"units/{id_}"] for id_ in file["units"])


def test_any_nan_of_an_older_file_is_one_nan(archive):
    """JSON has one, so the content of a converted unit would differ from that of its shard otherwise."""
    if archive.path.name.startswith("v2"):
        pytest.skip("it has one only")
    (path,) = archive.path.glob("shards/*/*.h5")
    edit(path, lambda file: file[f"{UNIT}/summary/area"].__setitem__((), -math.nan))
    with open_run(archive.path) as run, open_run(archive.consolidate()) as whole:
        assert content_digest(run) == content_digest(whole)
