"""Columns that grow: what is written is what `elements.write_values` would write of the whole."""

import itertools
import math

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equivengine.errors import PluginError
from equivengine.store import elements, growing, guard, nodes, refusal, schema
from equivengine.store.files import new_file
from equivengine.store.growing import Numbers, Overflow, Texts, Words, write_column

_number = itertools.count()  # hypothesis goes through one file


@pytest.fixture
def overflow(tmp_path, monkeypatch):
    """Blocks of four rows, chunks of a dozen numbers."""
    monkeypatch.setattr(growing, "ROWS", 4)
    monkeypatch.setattr(schema, "CHUNK_BYTES", 96)
    monkeypatch.setattr(schema, "CHUNKED_FROM_BYTES", 128)
    with Overflow(tmp_path) as found:
        yield found


@pytest.fixture
def file(tmp_path):
    with new_file(tmp_path / "made.h5", schema.RUN_FORMAT) as made:
        yield made


def assert_written_as_a_whole(file, column, whole):
    group = nodes.make_group(file, f"{next(_number)}")
    found, wanted = write_column(group, "found", column), elements.write_values(group, "wanted", whole, "column")
    assert len(column) == len(whole)
    np.testing.assert_array_equal(found[()], wanted[()])
    assert found.dtype == wanted.dtype
    assert found.id.get_create_plist().equal(wanted.id.get_create_plist())
    assert dict(found.attrs) == dict(wanted.attrs)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.floats(), max_size=40), before=st.integers(0, 9))
def test_numbers_are_written_as_a_whole_would_be(overflow, file, values, before):
    column = Numbers(overflow, "d", before=before, fill=math.nan)
    for value in values:
        column.append(value)
    assert_written_as_a_whole(file, column, np.array([math.nan] * before + values, dtype=np.float64))


@pytest.mark.parametrize("kind", [Texts, Words])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)))
def test_texts_are_written_as_a_whole_would_be(overflow, file, kind, texts):
    column = kind(overflow)
    for text in texts:
        column.append(text)
    raw = [text.encode() for text in texts]
    assert_written_as_a_whole(file, column, np.array(raw, dtype=f"S{max(1, *map(len, raw), 0)}"))


def test_rows_that_went_to_disk_are_not_in_memory_and_leave_no_file(overflow, tmp_path):
    column = Numbers(overflow, "d")
    for value in range(1000):
        column.append(value)
    assert len(column._last) < growing.ROWS
    assert np.concatenate([*column.blocks()]).tolist() == [*range(1000)]
    assert not [*tmp_path.iterdir()]


def test_a_column_that_packs_too_well_is_not_packed(overflow, file, monkeypatch):
    monkeypatch.setattr(schema, "UNPACKED_FREELY_BYTES", 1 << 10)
    monkeypatch.setattr(schema, "CHUNK_BYTES", 1 << 20)
    zeros = Numbers(overflow, "d", before=100_000)
    assert write_column(file, "zeros", zeros).compression is None
    monkeypatch.setattr(schema, "MAX_DATASET_BYTES", 1 << 10)
    with pytest.raises(PluginError, match="column 'zeros' is too large"):
        write_column(file, "zeros", zeros)


@pytest.mark.parametrize("tracked", [True, False])
def test_names_are_handed_over_in_order_without_a_list(tmp_path, tracked, monkeypatch):
    wanted = [f"{7 * number % 101:03d}" for number in range(101)]
    with h5py.File(tmp_path / "names.h5", "w", libver=schema.LIBVER) as made:
        group = made.create_group("units", track_order=tracked)
        for name in wanted:
            group.create_group(name)
        monkeypatch.setattr(guard, "names", lambda *args: pytest.fail("a list was made"))
        found = []
        guard.each_name(group, found.append)
        assert found == (wanted if tracked else sorted(wanted))
        with pytest.raises(refusal.Refused, match="101 entries in /units"):
            guard.each_name(group, found.append, 100)
        group.create_group("n" * (schema.MAX_NAME_BYTES + 1))
        with pytest.raises(refusal.Refused, match="a name of"):
            guard.each_name(group, found.append)
