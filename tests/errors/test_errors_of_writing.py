"""Errors of what cannot be stored, or is read back otherwise than it was written."""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest
from damaged_runs import UNIT, attribute, edit, shard_in
from store_cases import make_result, make_unit

from equivengine.contracts.result import Array, ProbeResult
from equivengine.errors import EngineError
from equivengine.store import RunDirectory, elements, files, guard, nodes, refusal, schema, shard, units
from equivengine.store.record import Record
from equivengine.store.template import Templates


def test_a_shard_whose_arrays_do_not_fit_is_not_consolidated(run):
    edit(shard_in(run), attribute(f"{UNIT}/arrays/zeta", "dims", np.bytes_("a,b,c")))
    (run / "run.h5").unlink()
    with pytest.raises(EngineError, match="not safe to read"):
        RunDirectory.open(run).consolidate()


def test_a_run_file_that_is_read_back_otherwise_than_it_was_written(run, monkeypatch):
    """As if the disk had changed something on the way."""
    (run / "run.h5").unlink()
    monkeypatch.setattr(shard, "structure_written", lambda sha256: None)  # as in another process
    monkeypatch.setattr(units, "copy_unit", lambda source, parent, unit_id: units.read_record(source))
    with pytest.raises(EngineError, match="not safe to read"):
        RunDirectory.open(run).consolidate()


def test_what_hdf5_itself_would_not_write(tmp_path):
    with (
        pytest.raises(EngineError, match="HDF5 would not write"),
        files.new_file(tmp_path / "file.h5", schema.SHARD_FORMAT),
    ):
        raise OSError("unable to write")


def test_what_hdf5_itself_would_not_make_in_memory():
    def fail(root):
        raise OSError("unable to write")

    with pytest.raises(EngineError, match="HDF5 would not write"):
        files.make_image(schema.SHARD_FORMAT, fail)


def text_of(size):
    return "x" * size


UNSTORABLE = {
    "text-too-long": lambda file: elements.write_text(file, "a", text_of(schema.MAX_TEXT_BYTES + 1)),
    "no-unicode": lambda file: elements.set_text(file, "a", "\ud800"),
    "array-too-large": lambda file: elements.write_values(
        file, "a", np.broadcast_to(np.zeros(1), (schema.MAX_DATASET_BYTES // 8 + 1,)), "array"
    ),
    "no-single-name": lambda file: guard.group(file, "a/b"),
}


@pytest.mark.parametrize("value", UNSTORABLE)
def test_what_cannot_be_stored(tmp_path, value):
    with h5py.File(tmp_path / "file.h5", "w") as file, pytest.raises((EngineError, refusal.Refused)):
        UNSTORABLE[value](file)


def test_a_probe_whose_name_is_no_name():
    with pytest.raises(EngineError, match="name is not usable"):
        shard.check_storable(make_unit(probe="a/b"), make_result())


def test_json_of_a_size_that_no_reader_takes(monkeypatch):
    monkeypatch.setattr(schema, "MAX_JSON_FILE_BYTES", 10)
    with pytest.raises(EngineError, match="too large"):
        schema.sealed_json({"digest": "0123456789"}, "the plan")


OTHERS = {
    "unit": (make_unit(1), make_result()),
    "summary": (make_unit(), ProbeResult(make_result().arrays, {}, pictures=make_result().pictures)),
    "arrays": (make_unit(), ProbeResult({}, make_result().summary, pictures=make_result().pictures)),
    "shape": (make_unit(), make_result(size=9)),
    "pictures": (make_unit(), make_result(side=0)),
    "picture-shape": (make_unit(), make_result(side=20)),
    "checks": (make_unit(), dataclasses.replace(make_result(), checks={})),
}


@pytest.mark.parametrize("part", OTHERS)
def test_a_shard_that_is_read_back_otherwise_than_it_was_written(tmp_path, monkeypatch, part):
    """As if the disk had changed something on the way."""
    written = shard._fill_unit
    unit, result = OTHERS[part]
    if part == "arrays":
        result = ProbeResult(
            {"other": Array(np.zeros(2), ("k",), "1", "Others.")}, make_result().summary, pictures=result.pictures
        )

    def write(units, _unit, _result, record):
        if part in ("unit", "summary", "checks"):
            record = Record.of(unit, result, {}).to_text().encode()
        written(units, unit, result, record)
        if part == "unit":
            units.move(unit.unit_id, make_unit().unit_id)

    monkeypatch.setattr(shard, "_fill_unit", write)
    monkeypatch.setattr(shard, "fits", lambda result: False)  # made from no other one
    monkeypatch.setattr(shard, "_read_back", {})  # the first result of its structure in this process
    with pytest.raises(EngineError, match="cannot be read back"):
        shard.write_shard(tmp_path / "shard.h5", make_unit(), make_result(), {})


@pytest.mark.parametrize("what", ["replace_text", "replace_values", "rename"])
def test_a_shard_that_becomes_another_one_than_it_should(tmp_path, monkeypatch, what):
    """The first one that is made from another one is looked at too, with its values."""
    monkeypatch.setattr(shard, "_templates", Templates())
    monkeypatch.setattr(shard, "_read_back", {})
    shard.write_shard(tmp_path / "first.h5", make_unit(0), make_result(0), {})
    monkeypatch.setattr(nodes, what, lambda *arguments: None)
    with pytest.raises(EngineError, match="cannot be read back"):
        shard.write_shard(tmp_path / "second.h5", make_unit(1), make_result(1), {})
