"""Runs that a disk, a tool or somebody else has changed: `show`, `verify` and `resume` name the file and the fault."""

from __future__ import annotations

import builtins
import dataclasses
import errno
import json
import os
import shutil
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_cases import make_plan, make_result, make_unit

from equivengine.contracts.result import Array, ProbeResult
from equivengine.errors import EngineError
from equivengine.store import (
    RunDirectory,
    digests,
    elements,
    files,
    guard,
    nodes,
    open_run,
    refusal,
    schema,
    shard,
    units,
)
from equivengine.store.record import Record
from equivengine.store.template import Templates

ARCHIVES = Path(__file__).parents[1] / "archives"
UNIT = f"units/{make_unit().unit_id}"
SLOPE = f"{UNIT}/summary/slope"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A run of one unit, consolidated."""
    directory = RunDirectory.create_or_open(tmp_path_factory.mktemp("runs") / "run", make_plan(1), "digest")
    assert directory.publish(make_unit(), make_result(size=3000), {"host": "here"})
    directory.consolidate()
    return directory.path


@pytest.fixture
def run(published, tmp_path):
    """A copy of it, in the working directory."""
    return shutil.copytree(published, tmp_path / "run")


@pytest.fixture
def older(tmp_path):
    """A copy of a run that format 1.2 wrote, in the working directory."""
    return shutil.copytree(ARCHIVES / "v1.2", tmp_path / "older")


def shard_in(run):
    return next((run / "shards").rglob("*.h5"))


def edit(path, change):
    """Change a file with h5py, and make its digest right again."""
    with h5py.File(path, "r+", libver=("v108", "latest")) as file:
        change(file)
    seal(path, b"")


def seal(path, lines):
    """Write the user block: the right digest, and ``lines``."""
    with open(path, "r+b") as file:
        digest = digests.sha256_of(path, schema.USER_BLOCK)
        block = schema.MAGIC + lines + f"sha256 {digest}\n".encode()
        file.write(block.ljust(schema.USER_BLOCK, b"\0"))


def labelled(node, encoding):
    node.attrs["encoding-type"] = np.bytes_(encoding)
    node.attrs["encoding-version"] = node.file.attrs["format-version"]
    return node


def replaced(name, encoding, **options):
    def change(file):
        group, _, last = f"{UNIT}/{name}".rpartition("/")
        attributes = dict(file[group][last].attrs)
        del file[group][last]
        node = labelled(file[group].create_dataset(last, **options), encoding)
        for key, value in attributes.items():
            if key in ("dims", "unit", "description", "group", "n"):
                node.attrs[key] = value

    return change


def attribute(where, key, value):
    def change(file):
        file[where].attrs.pop(key, None)
        file[where].attrs[key] = value

    return change


def many_entries(file):
    for number in range(schema.MAX_ENTRIES + 1):
        file[f"{UNIT}/arrays"].create_group(str(number))


def giant_name(file):
    file[f"{UNIT}/arrays"].create_group("x" * 2000)


def no_group(file):
    del file[f"{UNIT}/arrays"]
    file[f"{UNIT}/arrays"] = 1.0


def json_of(name, text):
    return replaced(name, "json", data=np.bytes_(text))


def recorded(*path, value):
    """Another value in the place of one field of the record."""

    def change(file):
        record = json.loads(file[f"{UNIT}/record"][()])
        *parents, last = path
        place = record
        for key in parents:
            place = place[key]
        place[last] = value
        json_of("record", schema.to_json(record, "a record"))(file)

    return change


RUN_FILES = {
    "one-text": replaced("record", "json", data=1.0),
    "no-record": lambda file: file.__delitem__(f"{UNIT}/record"),
    "status": recorded("status", value="perhaps"),
    "no-text": recorded("message", value=3),
    "no-object": recorded("provenance", value=3),
    "no-list": recorded("summary", value={}),
    "no-number": recorded("summary", 0, "value", value="0.25"),
    "no-interval": recorded("summary", 0, "interval", value=0.5),
    "no-count": recorded("summary", 0, "n", value=0.5),
    "no-entry": recorded("checks", 0, value=1.0),
    "no-name": recorded("checks", 0, "name", value=""),
    "not-passed": recorded("checks", 0, "passed", value=1),
    "long-text": recorded("summary", 0, "description", value="x" * (schema.MAX_ATTRIBUTE_BYTES + 1)),
    "many-scalars": recorded("summary", value=[{"name": f"a{n}"} for n in range(schema.MAX_ENTRIES + 1)]),
    "entries": many_entries,
    "long-name": giant_name,
    "no-group": no_group,
    "no-version": attribute(UNIT, "encoding-version", np.bytes_("none")),
    "json-array": json_of("record", "[1]"),
    "json-wide": json_of("record", '{"a":[' + "[]," * (schema.MAX_JSON_VALUES + 1) + "[]]}"),
    "large-attribute": attribute(UNIT, "encoding-type", np.bytes_(b"x" * (schema.MAX_ATTRIBUTE_BYTES + 1))),
    "array-attribute": attribute(UNIT, "encoding-type", np.zeros(schema.MAX_ATTRIBUTE_BYTES + 1, "S1")),
}


@pytest.mark.parametrize("change", RUN_FILES)
def test_a_run_file_that_was_changed(refused, run, change):
    edit(run / "run.h5", RUN_FILES[change])
    assert "run.h5" in refused("show", "run/run.h5", code=1)


OLDER_FILES = {
    "one-float": replaced("summary/slope", "scalar", data=np.zeros(3)),
    "status": replaced("status", "string", data=np.bytes_("perhaps")),
    "interval": attribute(SLOPE, "interval", np.zeros(3)),
    "count": attribute(SLOPE, "n", 0.5),
    "bound": attribute(f"{UNIT}/checks/monotone", "bound", np.int64(1)),
    "large-attribute": attribute(SLOPE, "description", np.zeros(schema.MAX_ATTRIBUTE_BYTES + 1, "S1")),
}


@pytest.mark.parametrize("change", OLDER_FILES)
def test_a_run_file_of_format_1_that_was_changed(refused, older, change):
    edit(older / "run.h5", OLDER_FILES[change])
    assert "run.h5" in refused("show", "older/run.h5", code=1)


def column(name, values):
    def change(file):
        del file[f"manifest/{name}"]
        labelled(file["manifest"].create_dataset(name, data=values), "column").attrs["dims"] = np.bytes_("entry")

    return change


def other_unit(file):
    recorded("unit", "seed", value=7)(file)


def another_form(file):
    json_of("record", json.dumps(json.loads(file[f"{UNIT}/record"][()]), indent=1))(file)


def unit_renamed(file):
    file.move(UNIT, "units/first")


def many_chunks(file):
    size = 4 * (schema.MAX_CHUNKS + 1)
    del file[f"{UNIT}/arrays/zeta"]
    node = file[f"{UNIT}/arrays"].create_dataset("zeta", shape=(size,), dtype="u1", chunks=(4,))
    for place in range(0, size, 4):
        node.id.write_direct_chunk((place,), b"abcd")
    labelled(node, "array")


def unpacks(file):
    del file[f"{UNIT}/arrays/zeta"]
    shape = (512, 1 << 22)
    node = file[f"{UNIT}/arrays"].create_dataset("zeta", shape=shape, dtype="u1", chunks=(1, 1 << 22), compression=9)
    packed = zlib.compress(bytes(1 << 22), 9)
    for row in range(512):
        node.id.write_direct_chunk((row, 0), packed)
    labelled(node, "array").attrs["dims"] = np.bytes_("a,b")


SCANNED = {
    "manifest-ids": column("unit_id", np.array(["A" * 64], "S64")),
    "manifest-lengths": column("size", np.zeros(2, np.int64)),
    "manifest-types": column("size", np.zeros(1)),
    "manifest-empty": lambda file: [
        column(name, np.array([], "S64" if name != "size" else np.int64))(file)
        for name in ("unit_id", "shard", "sha256", "size")
    ],
    "unit-name": unit_renamed,
    "unit-content": other_unit,
    "record-form": another_form,
    "status": RUN_FILES["status"],
    "dims": attribute(f"{UNIT}/arrays/zeta", "dims", np.bytes_("a,b,c")),
    "chunks": many_chunks,
    "unpacks": unpacks,
}


@pytest.mark.parametrize("change", SCANNED)
def test_verify_names_what_was_changed_in_a_run_file(refused, run, change):
    edit(run / "run.h5", SCANNED[change])
    assert "run.h5" in refused("verify", "run", code=1, block=False)


def test_verify_names_a_unit_that_stands_twice_in_the_manifest(refused, run):
    def change(file):
        for name in ("unit_id", "shard", "sha256", "size"):
            column(name, np.repeat(file[f"manifest/{name}"][()], 2))(file)

    edit(run / "run.h5", change)
    assert "run.h5" in refused("verify", "run", code=1, block=False)


@pytest.mark.parametrize(
    "block", [b"colour red\n", b"format equivengine-run 1.0\n"], ids=["unknown-line", "another-format"]
)
def test_verify_names_a_block_that_no_writer_puts_in_front(refused, run, block):
    seal(shard_in(run), block)
    assert shard_in(run).name in refused("verify", "run", code=1, block=False)


def test_verify_names_a_file_without_a_digest(refused, run):
    with open(shard_in(run), "r+b") as file:
        file.write(bytes(schema.USER_BLOCK))
    assert "carries no digest" in refused("verify", "run", code=1, block=False)


def test_verify_names_a_run_file_of_another_plan(refused, run, tmp_path):
    other = RunDirectory.create_or_open(tmp_path / "other", make_plan(2), "another")
    assert other.publish(make_unit(), make_result(), {})
    shutil.copy(other.consolidate(), run / "run.h5")
    assert "another plan" in refused("verify", "run", code=1, block=False)


def test_verify_names_a_shard_of_other_units_than_its_name_says(refused, tmp_path):
    directory = RunDirectory.create_or_open(tmp_path / "run", make_plan(2), "digest")
    assert directory.publish(make_unit(), make_result(), {})
    other = directory.path / schema.shard_path(make_unit(1).unit_id)
    other.parent.mkdir(exist_ok=True)
    shutil.copy(shard_in(directory.path), other)
    assert other.name in refused("verify", "run", code=1, block=False)


def test_verify_names_a_shard_that_holds_what_no_probe_may_return(refused, run):
    edit(shard_in(run), recorded("summary", 0, "interval", value=[1.0, 0.0]))
    assert "reversed" in refused("verify", "run", code=1, block=False)


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


PLANS = {
    "no-object": '{"digest":"d","format":"equivengine-plan","format_version":"1.0","plan":3}',
    "no-digest": '{"digest":3,"format":"equivengine-plan","format_version":"1.0","plan":{"units":[]}}',
    "no-unit": '{"digest":"d","format":"equivengine-plan","format_version":"1.0","plan":{"units":[3]}}',
    "half-a-unit": '{"digest":"d","format":"equivengine-plan","format_version":"1.0","plan":{"units":[{"probe":"a"}]}}',
}


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_that_was_changed(refused, run, plan):
    (run / "plan.json").write_text(PLANS[plan])
    assert "plan.json" in refused("show", "run", code=1)


def test_a_plan_with_spaces_in_it(refused, run):
    (run / "plan.json").write_text((run / "plan.json").read_text().replace(",", ", "))
    assert "plan.json" in refused("verify", "run", code=1, block=False)


def test_a_plan_of_a_size_that_no_plan_has(refused, run):
    with open(run / "plan.json", "r+b") as file:
        file.truncate(schema.MAX_JSON_FILE_BYTES + 1)
    assert "plan.json" in refused("show", "run", code=1)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "change its permissions"),
        (MemoryError(), "too little memory"),
    ],
    ids=["permissions", "memory"],
)
def test_a_plan_that_the_system_does_not_let_one_read(refused, run, monkeypatch, error, says):
    opened = builtins.open

    def refuse(path, *arguments, **options):
        if str(path).endswith("plan.json"):
            raise error
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", refuse)
        patch.setattr("equivengine.store.layout.open", refuse, raising=False)
        patch.setattr(type(run), "read_text", lambda path, *a, **k: refuse(path).read())
        patch.setattr(type(run), "read_bytes", lambda path, *a, **k: refuse(path, "rb").read())
        with pytest.raises(EngineError, match=says):
            open_run(run)


def test_an_array_that_changed_after_it_was_opened(run):
    with open_run(run / "run.h5") as opened:
        (record,) = opened.units()
        stored = dataclasses.replace(record.arrays.open("zeta"), shape=(1, 1))
        with pytest.raises(EngineError, match="not safe to read"):
            stored[:]


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


def test_results_of_a_probe_that_did_not_run(run):
    with open_run(run) as opened, pytest.raises(EngineError, match="no results of probe 'lcld'"):
        opened.results("lcld")


def test_a_plan_with_an_id_that_has_no_text():
    with pytest.raises(EngineError, match="the plan is damaged"):
        schema.plan_units({"units": [{"unit_id": 10**5000}]})
