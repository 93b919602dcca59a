"""Files made to do harm: each is one clear error, in little time and memory, and nothing outside them is read.

Time is that of the processor, and memory is what a fresh process takes beyond what its imports took. Attacks that are
about what is read, rather than about what that costs, are in test_store_guard.
"""

import json
import multiprocessing
import resource
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5o, h5p
from store_cases import make_result, make_unit
from test_store_guard import UNIT, _labelled, edit, read_everything

from equivengine.contracts.result import Array, ProbeResult
from equivengine.errors import PluginError, StoreError
from equivengine.store import RunDirectory, inspect_run, open_run, schema

SECONDS, BYTES = 2.0, 200_000_000


def _cost(action, path, connection):
    """In a process of its own: what an action says, and what it takes."""
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    start = time.process_time()
    try:
        said = action(path)
    except StoreError as error:
        said = ("StoreError", error.what, error.hint)
    except BaseException as error:
        said = (type(error).__name__, str(error)[:200], None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    connection.send((said, time.process_time() - start, peak - before))


def _inspect(path):
    found = inspect_run(path).findings
    return [(str(finding.path), finding.error.what, finding.error.hint) for finding in found]


def measured(action, path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["equivengine.store", "store_cases"])
    here, there = context.Pipe()
    process = context.Process(target=_cost, args=(action, path, there))
    process.start()
    try:
        assert here.poll(60), "it hangs"
        said, seconds, growth = here.recv()
    finally:
        process.kill()
        process.join()
    assert seconds < SECONDS
    assert growth < BYTES
    return said


def assert_refused(path, run):
    """Reading it is one clear error that names the file, and so is verifying it."""
    kind, what, hint = measured(read_everything, run)
    assert kind == "StoreError", what
    assert str(path) in what
    assert hint
    found = measured(_inspect, run)
    assert str(path) in {name for name, _, _ in found}, found
    assert all(hint for _, _, hint in found)


def _soft_loop(file):
    del file[UNIT]["arrays"]
    file[UNIT]["arrays"] = h5py.SoftLink(f"/{UNIT}/loop")
    file[UNIT]["loop"] = h5py.SoftLink(f"/{UNIT}/arrays")


def _hard_loop(file):
    del file[UNIT]["arrays"]
    file[UNIT]["arrays"] = file[UNIT]


def _unit_twice(file):
    file[f"units/{'a' * 64}"] = file[UNIT]


def _many_attributes(where, count):
    def change(file):
        node = file[where].id
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        for number in range(count):
            h5py.h5a.create(node, b"%06d" % number, h5py.h5t.NATIVE_INT8, space)
        file[where].attrs["encoding-type"] = np.int64(1)  # the clear error, after all these

    return change


def _huge_attribute(file):
    del file[f"{UNIT}/arrays/zeta"].attrs["description"]
    file[f"{UNIT}/arrays/zeta"].attrs.create("description", np.zeros(50_000_000, "S1"))


def _deep(file):
    group = file[UNIT]
    del group["arrays"]
    for _ in range(10_000):
        group = group.create_group("arrays", track_order=False)
    _labelled(file[UNIT]["arrays/arrays"], "array")


def _many_entries(file):
    for number in range(schema.MAX_ENTRIES + 1):
        file[f"{UNIT}/arrays"].create_group(str(number))


def _giant_name(file):
    file[f"{UNIT}/arrays"].create_group("x" * 60_000)


def _unpacks(file):
    """2 GiB of zeros in 2 MB, in chunks that are as they should be."""
    arrays = file[f"{UNIT}/arrays"]
    del arrays["zeta"]
    node = arrays.create_dataset("zeta", shape=(512, 1 << 22), dtype="u1", chunks=(1, 1 << 22), compression="gzip")
    import zlib

    packed = zlib.compress(bytes(1 << 22), 9)
    for row in range(512):
        node.id.write_direct_chunk((row, 0), packed)
    _labelled(node, "array").attrs["dims"] = np.bytes_("a,b")


def _many_chunks(file):
    arrays = file[f"{UNIT}/arrays"]
    del arrays["zeta"]
    node = arrays.create_dataset("zeta", shape=(300_000,), dtype="u1", chunks=(4,))
    for place in range(0, 4 * (schema.MAX_CHUNKS + 1), 4):
        node.id.write_direct_chunk((place,), b"abcd")
    _labelled(node, "array")


def _declared(file):
    arrays = file[f"{UNIT}/arrays"]
    del arrays["zeta"]
    shape = (10**10,)
    _labelled(arrays.create_dataset("zeta", shape=shape, dtype="f4", chunks=(10**5,), compression="gzip"), "array")


def _type_in_place_of_data(name):
    def change(file):
        del file[f"{UNIT}/{name}"]
        file[f"{UNIT}/{name}"] = np.dtype("f8")

    return change


def _json(name, text):
    """The dataset of a text in place of another one."""

    def change(file):
        group = file[UNIT]
        del group[name]
        _labelled(group.create_dataset(name, data=np.bytes_(text)), "json", file.attrs["format-version"])

    return change


def _recorded(key, text):
    """A JSON text in the place of one field of the record."""

    def change(file):
        raw = json.loads(file[f"{UNIT}/record"][()])
        raw[key] = "<here>"
        _json("record", json.dumps(raw).replace('"<here>"', text))(file)

    return change


def _parameters(text):
    def change(file):
        raw = json.loads(file[f"{UNIT}/record"][()])["unit"]
        _recorded("unit", json.dumps({**raw, "params": text}))(file)

    return change


def _older_parameters(text):
    def change(file):
        raw = json.loads(file[f"{UNIT}/unit"][()])
        _json("unit", json.dumps({**raw, "params": text}))(file)

    return change


def _within_summary(change):
    def within(file):
        change(file[f"{UNIT}/summary"])

    return within


DEEP = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"


WIDE = '{"a":[' + "[]," * 5_000_000 + "[]]}"


FILES = {
    "soft link loop": _soft_loop,
    "hard link loop": _hard_loop,
    "a unit of two names": _unit_twice,
    "100,000 attributes of an array": _many_attributes(f"{UNIT}/arrays/zeta", 100_000),
    "65,000 attributes of a unit": _many_attributes(UNIT, 65_000),
    "huge attribute": _huge_attribute,
    "10,000 groups deep": _deep,
    "many entries": _many_entries,
    "giant name": _giant_name,
    "2 GiB in 2 MB": _unpacks,
    "many chunks": _many_chunks,
    "40 GB declared": _declared,
    "a type in place of data": _type_in_place_of_data("record"),
    "NaN in JSON": _recorded("provenance", '{"a":NaN}'),
    "infinity in JSON": _recorded("probe_provenance", '{"a":-Infinity}'),
    "deep JSON": _recorded("provenance", DEEP),
    "wide JSON": _recorded("provenance", WIDE),
    "JSON of another kind": _json("record", "[1]"),
    "no JSON": _json("record", "{"),
    "many scalars": _recorded("summary", json.dumps([{"name": f"a{n}", "value": 0.0} for n in range(10_001)])),
    "deep parameters": _parameters("[" * 100_000 + "]" * 100_000),
    "wide parameters": _parameters("[" + "[]," * 5_000_000 + "[]]"),
    "parameters that are none": _parameters("{"),
}


OLDER_FILES = {
    "100,000 attributes of a scalar": _many_attributes(f"{UNIT}/summary/slope", 100_000),
    "many entries": _within_summary(lambda group: [group.create_group(str(n)) for n in range(schema.MAX_ENTRIES + 1)]),
    "giant name": _within_summary(lambda group: group.create_group("x" * 60_000)),
    "a type in place of data": _type_in_place_of_data("status"),
    "NaN in JSON": _json("provenance", '{"a":NaN}'),
    "deep JSON": _json("provenance", DEEP),
    "wide JSON": _json("probe_provenance", WIDE),
    "wide parameters": _older_parameters("[" + "[]," * 5_000_000 + "[]]"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_shard_is_one_clear_error_in_little_time_and_memory(shard, directory, name):
    edit(shard, FILES[name])
    assert_refused(shard, directory.path)


@pytest.mark.parametrize("name", OLDER_FILES)
def test_a_hostile_shard_of_format_1_is_one_clear_error_in_little_time_and_memory(older, older_shard, name):
    edit(older_shard, OLDER_FILES[name])
    (older / "run.h5").unlink()
    assert_refused(older_shard, older)


@pytest.mark.parametrize("name", ["soft link loop", "100,000 attributes of an array", "2 GiB in 2 MB", "wide JSON"])
def test_a_hostile_run_file_is_one_clear_error_in_little_time_and_memory(shard, directory, name):
    file = directory.consolidate()
    edit(file, FILES[name])
    assert_refused(file, file)


def test_headers_that_run_on_through_many_blocks_are_read_in_little_time(shard, directory):
    """The old form of headers has no other place for attributes than one block after the other."""
    shard.unlink()
    plist = h5p.create(h5p.FILE_CREATE)
    plist.set_userblock(schema.USER_BLOCK)
    with h5py.File(shard, "w", libver=("earliest", "v108"), userblock_size=schema.USER_BLOCK) as file:
        for name, encoding in (("/", schema.SHARD_FORMAT), ("units", "units"), (UNIT, "unit")):
            _labelled(file.require_group(name), encoding)
        file.attrs["format"], file.attrs["format-version"] = np.bytes_(schema.SHARD_FORMAT), np.bytes_("2.0")
        node = _labelled(file[UNIT].create_dataset("record", data=np.bytes_("{}")), "json")
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        for number in range(3_000):
            h5py.h5a.create(node.id, b"%06d" % number, h5py.h5t.NATIVE_INT8, space)
            if number % 10 == 0:  # in the way of the header
                file.create_dataset(f"other-{number}", data=number)
        assert h5o.get_info(node.id).hdr.nchunks > 50
    edit(shard, lambda file: None)
    assert_refused(shard, directory.path)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"plan":[' + "[]," * 5_000_000 + "[]]}",
        '{"digest":"digest","format":"equivengine-plan","format_version":"1.0","plan":{"units":[NaN]}}',
        '{"digest":"digest","format":"equivengine-plan","format_version":"1.0","plan":{"units":{"a":1}}}',
        '{"digest":["digest"],"format":"equivengine-plan","format_version":"1.0","plan":{"units":[]}}',
        '{"digest":"digest","format":["equivengine-plan"],"format_version":"1.0","plan":{"units":[]}}',
        '{"digest":"digest","format":"equivengine-plan","format_version":{},"plan":{"units":[]}}',
        '{"digest":"d","format":"equivengine-plan","format_version":"1.0","plan":{"units":[{"unit_id":[]}]}}',
        '{"digest":"d","format":"equivengine-plan","format_version":"1.0","plan":{"units":[' + "1" * 100_000 + "]}}",
        "\ufeff{}",
        "",
    ],
    ids=lambda text: text[:30],
)
def test_a_hostile_plan_is_one_clear_error_in_little_time_and_memory(directory, text):
    path = directory.path / "plan.json"
    path.write_text(text)
    assert_refused(path, directory.path)


def test_a_plan_of_a_size_that_it_does_not_have_is_not_read(directory):
    path = directory.path / "plan.json"
    with open(path, "r+b") as file:
        file.truncate(1 << 33)
    assert_refused(path, directory.path)


def test_a_hostile_failure_is_one_clear_error(directory):
    directory.record_failure(make_unit(), "it broke")
    (path,) = (directory.path / "failures").iterdir()
    data = json.loads(path.read_text())
    unit = data["unit"]
    for change in (
        {"unit": {**unit, "params": "[" * 100_000}},
        {"unit": {**unit, "seed": "0"}},
        {"unit": {**unit, "seed": True}},
        {"unit": {**unit, "samples": [1]}},
        {"unit": {**unit, "samples": [{**unit["samples"][0], "digest": 7}]}},
        {"unit": {**unit, "model": {"a": 1}}},
        {"unit": 3},
        {"provenance": []},
        {"unit": {**unit, "seed": 5}},  # another unit than its name says
    ):
        path.write_text(schema.sealed_json({**data, **change}, "a failure"))
        with pytest.raises(StoreError, match="failures") as caught:
            open_run(directory.path)
        assert caught.value.hint


@pytest.mark.parametrize(
    "block",
    [
        schema.MAGIC + b"sha256 " + b"0" * 64 + b"\n",
        schema.MAGIC + b"sha256\n",
        schema.MAGIC + b"\xff" * 400,
        schema.MAGIC + b"sha256 " + b"f" * 480,
        schema.MAGIC,
    ],
)
def test_a_user_block_that_lies_is_refused(shard, directory, block):
    with open(shard, "r+b") as file:
        file.write(block.ljust(schema.USER_BLOCK, b"\0"))
    assert_refused(shard, directory.path)


def test_what_would_be_taken_for_a_bomb_is_stored_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "UNPACKED_FREELY_BYTES", 1 << 20)
    zeros = np.zeros((300, 1000))
    result = ProbeResult({"zeros": Array(zeros, ("a", "b"), "1", "nothing")}, {})
    run = RunDirectory.create_or_open(tmp_path / "run", {"units": [make_unit().to_json()]}, "digest")
    assert run.publish(make_unit(), result, {})
    for path in (run.path, run.consolidate()):
        with open_run(path) as opened:
            np.testing.assert_array_equal(opened.units()[0].arrays["zeros"].data, zeros)
    assert not inspect_run(run.path).findings


def test_results_that_no_reader_would_take_are_refused_before_they_are_written(directory):
    many = {f"a{number}": value for number, value in enumerate([make_result().summary["slope"]] * 10_001)}
    for result, words in (
        (ProbeResult({}, many), "too many summary"),
        (ProbeResult({}, {"x" * 1001: make_result().summary["slope"]}), "too long"),
    ):
        with pytest.raises(PluginError, match=words):
            directory.publish(make_unit(), result, {})
    assert directory.published() == set()
