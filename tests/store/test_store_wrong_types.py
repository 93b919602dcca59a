"""Elements and attributes of a wrong type, in the place of every one that is read, are refused."""

import time

import h5py
import numpy as np
import pytest
from test_store_guard import UNIT, edit, read_everything
from test_store_hostile import SECONDS

from equivengine.errors import StoreError
from equivengine.store import inspect_run

TYPES = {
    "variable text": lambda group, name: group.create_dataset(name, data="text", dtype=h5py.string_dtype()),
    "variable array": lambda group, name: group.create_dataset(name, (1,), dtype=h5py.vlen_dtype("f8")),
    "reference": lambda group, name: group.create_dataset(name, data=group.ref, dtype=h5py.ref_dtype),
    "compound": lambda group, name: group.create_dataset(name, data=np.zeros((), [("a", "f4"), ("b", "f8")])),
    "enumeration": lambda group, name: group.create_dataset(name, (), dtype=h5py.enum_dtype({"a": 1})),
    "opaque": lambda group, name: group.create_dataset(name, data=np.void(b"1234")),
    "complex": lambda group, name: group.create_dataset(name, data=np.complex128(1j)),
    "nothing": lambda group, name: group.create_dataset(name, data=h5py.Empty("f8")),
    "group": lambda group, name: group.create_group(name),
    "named type": lambda group, name: group.__setitem__(name, np.dtype("f8")) or group[name],
}


ELEMENTS = ["record", "arrays/zeta", "pictures/found"]


OLDER_ELEMENTS = ["unit", "status", "message", "provenance", "probe_provenance", "summary/slope", "checks/monotone"]


def assert_every_type_is_refused(shard, run, element):
    original = shard.read_bytes()
    for make in TYPES.values():

        def change(file, make=make):
            node = file[f"{UNIT}/{element}"]
            labels = {key: node.attrs[key] for key in ("encoding-type", "encoding-version")}
            del file[f"{UNIT}/{element}"]
            made = make(file[UNIT], element)
            for key, value in labels.items():
                made.attrs[key] = value

        shard.write_bytes(original)
        edit(shard, change)
        start = time.process_time()
        with pytest.raises(StoreError) as caught:
            read_everything(run)
        assert str(shard) in str(caught.value)
        assert caught.value.hint
        assert shard in {finding.path for finding in inspect_run(run).findings}
        assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("element", ELEMENTS)
def test_wrong_types_in_the_place_of_every_element_are_refused(shard, directory, element):
    assert_every_type_is_refused(shard, directory.path, element)


@pytest.mark.parametrize("element", OLDER_ELEMENTS)
def test_wrong_types_in_the_place_of_every_element_of_format_1_are_refused(older, older_shard, element):
    assert_every_type_is_refused(older_shard, older, element)


VALUES = {
    "variable text": lambda node, key: node.attrs.create(key, "text"),
    "reference": lambda node, key: node.attrs.create(key, node.file.ref, dtype=h5py.ref_dtype),
    "compound": lambda node, key: node.attrs.create(key, np.zeros((), [("a", "f4"), ("b", "f8")])),
    "array": lambda node, key: node.attrs.create(key, np.zeros((3, 3), "u4")),
    "nothing": lambda node, key: node.attrs.create(key, h5py.Empty("f8")),
    "opaque": lambda node, key: node.attrs.create(key, np.void(b"12")),
    "no text": lambda node, key: node.attrs.create(key, np.bytes_(b"\xff\xfe")),
}


ATTRIBUTES = [
    ("/", "format"), ("/", "format-version"), (UNIT, "encoding-type"), (UNIT, "encoding-version"),
    (f"{UNIT}/record", "encoding-type"), (f"{UNIT}/record", "encoding-version"), (f"{UNIT}/arrays/zeta", "dims"),
    (f"{UNIT}/arrays/zeta", "unit"), (f"{UNIT}/arrays/zeta", "description"), (f"{UNIT}/pictures/found", "description"),
    (f"{UNIT}/pictures/found", "encoding-version"),
]  # fmt: skip


OLDER_ATTRIBUTES = [
    (f"{UNIT}/status", "encoding-type"), (f"{UNIT}/summary/slope", "interval"), (f"{UNIT}/summary/slope", "n"),
    (f"{UNIT}/summary/slope", "unit"), (f"{UNIT}/summary/slope", "description"), (f"{UNIT}/summary/slope", "group"),
    (f"{UNIT}/checks/monotone", "bound"), (f"{UNIT}/checks/monotone", "passed"),
    (f"{UNIT}/checks/monotone", "description"),
]  # fmt: skip


def assert_every_value_is_refused(shard, run, where, key):
    original = shard.read_bytes()
    for make in VALUES.values():

        def change(file, make=make):
            del file[where].attrs[key]
            make(file[where], key)

        shard.write_bytes(original)
        edit(shard, change)
        with pytest.raises(StoreError) as caught:
            read_everything(run)
        assert str(shard) in str(caught.value)
        assert caught.value.hint


@pytest.mark.parametrize(("where", "key"), ATTRIBUTES, ids=lambda text: text.rsplit("/", 1)[-1])
def test_wrong_types_in_the_place_of_every_attribute_are_refused(shard, directory, where, key):
    assert_every_value_is_refused(shard, directory.path, where, key)


@pytest.mark.parametrize(("where", "key"), OLDER_ATTRIBUTES, ids=lambda text: text.rsplit("/", 1)[-1])
def test_wrong_types_in_the_place_of_every_attribute_of_format_1_are_refused(older, older_shard, where, key):
    assert_every_value_is_refused(older_shard, older, where, key)
