"""Arrays that are read in parts: what comes is what NumPy gives, and what was not asked for is not read."""

import gc
import pickle
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from store_cases import make_plan, make_result, make_unit

from equivengine.contracts.result import Array, ProbeResult
from equivengine.errors import StoreError
from equivengine.store import RunDirectory, open_run
from equivengine.store.files import new_file
from equivengine.store.schema import CHUNK_BYTES

ROWS, COLUMNS = 96, 32768
SHAPE = (9, 7, 12)


def one_unit(path, arrays):
    run = RunDirectory.create_or_open(path, make_plan(1), "digest")
    run.publish(make_unit(), ProbeResult(arrays, {}), {})
    return run


def bytes_read():
    """By this process, through any system call (Linux)."""
    facts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(facts["rchar"])


@pytest.fixture(scope="module")
def values():
    """Noise, so that compression makes it hardly smaller: 12 MiB."""
    return np.random.default_rng(0).standard_normal((ROWS, COLUMNS), dtype=np.float32)


@pytest.fixture(scope="module")
def large(tmp_path_factory, values):
    run = one_unit(tmp_path_factory.mktemp("large") / "run", {"V": Array(values, ("k", "pixel"), "1", "V")})
    run.consolidate()
    return run.path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One array of many small chunks, one in one piece, one of texts, flags, a scalar."""
    data = np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE)
    arrays = {
        "x": Array(data, ("a", "b", "c"), "px", "Counted."),
        "big": Array(np.arange(7 * 5000, dtype=np.float64).reshape(7, 5000), ("b", "d"), "1", "Chunked."),
        "words": Array(np.array(["é", "", "longest"]), ("e",), "1", "Words."),
        "flags": Array(np.array([True, False, True]), ("e",), "1", "Flags."),
        "one": Array(np.float64(0.5), (), "s", "A scalar."),
        "none": Array(np.zeros((0, 3)), ("z", "e"), "1", "Nothing."),
    }
    path = one_unit(tmp_path_factory.mktemp("small") / "run", arrays).path
    with open_run(path) as run:
        yield run.units()[0].arrays, arrays


def test_large_arrays_are_compressed_in_chunks_near_one_mebibyte(large):
    for path in (next(large.glob("shards/*/*.h5")), large / "run.h5"):
        with h5py.File(path) as file:
            node = file[f"units/{make_unit().unit_id}/arrays/V"]
            assert CHUNK_BYTES / 2 < np.prod(node.chunks) * node.dtype.itemsize <= CHUNK_BYTES
            assert (node.compression, node.shuffle, node.fletcher32) == ("gzip", True, True)


@pytest.mark.parametrize("name", ["", "run.h5"])
def test_a_row_costs_one_chunk_of_disk_and_memory(large, values, name):
    with open_run(large / name) as run:
        V = run.units()[0].arrays.open("V")
        assert (V.shape, V.dtype, V.dims, V.nbytes) == ((ROWS, COLUMNS), np.float32, ("k", "pixel"), values.nbytes)
        row_bytes = values[0].nbytes
        before = bytes_read()
        tracemalloc.start()
        row = V[50]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        read = bytes_read() - before
        np.testing.assert_array_equal(row, values[50])
        assert row_bytes < read < CHUNK_BYTES + (128 << 10)  # the other 11 chunks are not read
        assert peak < 4 * row_bytes

        before = bytes_read()
        np.testing.assert_array_equal(V[:, 5], values[:, 5])
        assert bytes_read() - before > 0.8 * values.nbytes  # the counter does count


_axis = st.integers(-9, 8) | st.slices(9)


@settings(max_examples=200, deadline=None)
@given(key=st.one_of(hnp.basic_indices(SHAPE, allow_newaxis=False), st.tuples(_axis, _axis, _axis)))
def test_indexing_equals_that_of_numpy(small, key):
    found, given_arrays = small
    data = given_arrays["x"].data
    try:
        wanted = data[key]
    except IndexError:
        with pytest.raises(IndexError):
            found.open("x")[key]
        return
    got = found.open("x")[key]
    assert np.shape(got) == np.shape(wanted)
    np.testing.assert_array_equal(got, wanted)


def test_every_kind_of_array_can_be_read_in_parts(small):
    found, given_arrays = small
    opened = found.open_all()
    assert list(opened) == list(given_arrays)
    for name, array in given_arrays.items():
        stored = opened[name]
        assert (stored.dims, stored.unit, stored.description) == (array.dims, array.unit, array.description)
        assert stored.shape == array.data.shape
        np.testing.assert_array_equal(stored[...], array.data)
        np.testing.assert_array_equal(np.asarray(stored), array.data)
        np.testing.assert_array_equal(stored.read().data, array.data)
        assert stored.dtype.kind == array.data.dtype.kind
    assert opened["words"][2] == "longest"
    assert opened["flags"][1:].tolist() == [False, True]
    np.testing.assert_array_equal(opened["big"][::-3, 4990:], given_arrays["big"].data[::-3, 4990:])
    assert len(opened["big"]) == 7
    with pytest.raises(TypeError):
        len(opened["one"])


@pytest.mark.parametrize("key", [[0, 1], np.array([1]), None, True, "a", 1.5, (0, 0, 0, 0), (..., ...)])
def test_other_indices_are_refused_before_anything_is_read(small, key):
    with pytest.raises(IndexError):
        small[0].open("x")[key]


def test_a_part_of_a_hostile_array_is_not_read(tmp_path):
    run = one_unit(tmp_path / "run", {"x": Array(np.zeros(3), ("k",), "1", "x")})
    path = next(run.path.glob("shards/*/*.h5"))
    with open_run(run.path) as opened:
        stored = opened.units()[0].arrays.open("x")
        secret = tmp_path / "secret"
        secret.write_bytes(b"s" * 24)
        path.unlink()
        with new_file(path, "equivengine-shard") as file:
            arrays = file.create_group(f"units/{make_unit().unit_id}/arrays")
            node = arrays.create_dataset("x", (3,), "f8", external=[(str(secret), 0, 24)])
            node.attrs["encoding-type"], node.attrs["encoding-version"] = np.bytes_("array"), np.bytes_("1.0")
        with pytest.raises(StoreError, match="not safe to read"):
            stored[0]


@pytest.mark.parametrize("name", ["", "run.h5"])
def test_arrays_outlive_the_name_of_their_run_and_end_when_it_is_closed(large, values, name):
    stored = open_run(large / name).units()[0].arrays.open("V")
    gc.collect()
    np.testing.assert_array_equal(stored[3, :5], values[3, :5])
    with open_run(large / name) as run:
        stored = run.units()[0].arrays.open("V")
        copy = pickle.loads(pickle.dumps(stored))  # as dask sends it to another process
    np.testing.assert_array_equal(copy[3, :5], values[3, :5])
    with pytest.raises(StoreError, match="was closed"):
        stored[0]


def test_an_unknown_name_is_a_key_error(directory):
    directory.publish(make_unit(), make_result(), {})
    with open_run(directory.path) as run, pytest.raises(KeyError):
        run.units()[0].arrays.open("nothing")
