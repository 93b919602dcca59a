"""Runs, and ways to damage their files."""

from __future__ import annotations

import json

import h5py
import numpy as np
from store_cases import make_unit

from equivengine.store import digests, schema

UNIT = f"units/{make_unit().unit_id}"


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
