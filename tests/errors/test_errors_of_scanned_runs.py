"""Errors of `equivengine verify` and of writing: what is found by reading all of a run, and what is never written."""

from __future__ import annotations

import json
import shutil
import zlib

import numpy as np
import pytest
from damaged_runs import RUN_FILES, UNIT, attribute, edit, json_of, labelled, recorded, seal, shard_in
from store_cases import make_plan, make_result, make_unit

from equivengine.store import RunDirectory, schema


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


def test_verify_names_a_shard_in_which_there_is_no_hdf5(refused, run):
    shard = shard_in(run)
    shard.write_bytes(bytes(shard.stat().st_size))
    seal(shard, b"")
    assert "damaged" in refused("verify", "run", code=1, block=False)
