import json
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from store_cases import make_plan, make_result, make_unit, write_unit

from equivengine.contracts.result import Array, Check, Picture, ProbeResult, Scalar
from equivengine.errors import PluginError, StoreError
from equivengine.store import RunDirectory, open_run
from equivengine.store import schema as store_schema
from equivengine.store.files import new_file

DTYPES = ["f2", "f4", "f8", ">f4", ">i8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]


def assert_equal_results(found, given):
    assert list(found.arrays) == list(given.arrays)
    assert list(found.summary) == list(given.summary)
    np.testing.assert_equal([vars(c) for c in found.checks.values()], [vars(c) for c in given.checks.values()])
    assert list(found.checks) == list(given.checks)
    assert (found.status, found.message, found.provenance) == (given.status, given.message, dict(given.provenance))
    for name, array in given.arrays.items():
        got = found.arrays[name]
        assert (got.dims, got.unit, got.description) == (array.dims, array.unit, array.description)
        assert got.data.dtype.kind == array.data.dtype.kind
        assert got.data.dtype == array.data.dtype.newbyteorder("=") or got.data.dtype.kind == "U"
        np.testing.assert_array_equal(got.data, array.data)
    assert list(found.pictures) == list(given.pictures)
    for name, picture in given.pictures.items():
        assert found.pictures[name].description == picture.description
        assert found.pictures[name].levels.dtype == np.uint8
        np.testing.assert_array_equal(found.pictures[name].levels, picture.levels)
    for name, scalar in given.summary.items():
        np.testing.assert_equal(vars(found.summary[name]), vars(scalar))


def store_and_read(path, result, unit=None, provenance=None):
    """Read the result back from the run directory, and from run.h5."""
    unit = unit or make_unit()
    run = RunDirectory.create_or_open(path, {"units": [unit.to_json()]}, "digest")
    assert run.publish(unit, result, provenance or {})
    for source in (run.path, run.consolidate()):
        with open_run(source) as opened:
            (record,) = opened.units()
            assert record.unit == unit
            yield record.result(), record


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 4), (2, 3, 4), (300, 301)])
def test_every_dtype_and_shape_survives(tmp_path, dtype, shape):
    data = (np.random.default_rng(0).random(shape) * 3).astype(dtype)
    result = ProbeResult({"x": Array(data, tuple("abc"[: len(shape)]), "1", "Values.")}, {})
    for found, _ in store_and_read(tmp_path / "run", result):
        assert_equal_results(found, result)


def test_unicode_nan_infinity_order_and_coordinates_survive(tmp_path):
    result = ProbeResult(
        arrays={
            "zz": Array(np.array([np.nan, np.inf, -0.0]), ("k",), "µm", "Größe — ‖J‖₂ 🦉"),
            "k": Array(np.array(["é", "", "日本語"]), ("k",), "1", "A coordinate of its own name."),
            "gram": Array(np.eye(3), ("k", "k"), "1", "A dimension twice."),
            "m": Array(np.arange(3), ("k",), "1", "Named like a dimension that it does not run along."),
            "aa": Array(np.ones((2, 2), bool), ("m", "n"), "1", "Flags."),
            "words": Array(np.array(["a"]), ("one",), "", ""),
        },
        summary={
            "z": Scalar(float("inf"), "µm", "Zoë", interval=(float("-inf"), float("inf")), n=0, group="Gruppe ä"),
            "a": Scalar(float("nan"), "1", "Nothing."),
        },
        checks={"y": Check(False, float("nan"), 1.0, "≤ 1"), "b": Check.at_least(1, 0, "≥ 0")},
        status="not_converged",
        message="erhöhe die Tiefe → 8",
        provenance={"ü": ["ß", None, True, 1.5]},
    )
    for found, record in store_and_read(tmp_path / "run", result, provenance={"Ort": "Zürich", "x": np.float32(0.5)}):
        assert_equal_results(found, result)
        assert record.provenance == {"Ort": "Zürich", "x": 0.5}
        assert record.arrays["zz"].data[2] == 0
        assert np.signbit(record.arrays["zz"].data[2])


def test_nothing_at_all_survives(tmp_path):
    for found, _ in store_and_read(tmp_path / "run", ProbeResult({}, {})):
        assert_equal_results(found, ProbeResult({}, {}))


def test_long_messages_and_provenance_survive(tmp_path):
    result = ProbeResult({}, {}, status="failed", message="é" * 100_000, provenance={"log": "x" * 200_000})
    for found, record in store_and_read(tmp_path / "run", result, provenance={"nan": float("nan")}):
        assert_equal_results(found, result)
        assert record.provenance == {"nan": "NaN"}


_names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(lambda n: n not in store_schema.TABLE_NAMES)


@settings(max_examples=15, deadline=None)
@given(
    data=hnp.arrays(
        st.sampled_from([np.dtype(d) for d in DTYPES]), hnp.array_shapes(min_dims=1, max_dims=2, min_side=0)
    ),
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9), min_size=1),
    summary=st.dictionaries(_names, st.floats(), max_size=5),
)
def test_round_trip_is_the_identity(tmp_path_factory, data, texts, summary):
    arrays = {
        "x": Array(data, ("p", "q")[: data.ndim], "1", "Any."),
        "t": Array(np.array(texts), ("r",), "1", "Any."),
    }
    result = ProbeResult(arrays, {name: Scalar(value, "1", "Any.") for name, value in summary.items()})
    for found, _ in store_and_read(tmp_path_factory.mktemp("store") / "run", result):
        assert_equal_results(found, result)


def test_equal_work_gives_equal_bytes_whenever_it_is_done(tmp_path):
    shards = []
    for name in ("a", "b"):
        time.sleep(1 - time.time() % 1)  # HDF5 keeps whole seconds where it is not told to keep none
        run = RunDirectory.create_or_open(tmp_path / name, make_plan(), "digest")
        run.publish(make_unit(), make_result(size=2000), {})
        shards.append(next((tmp_path / name).glob("shards/*/*.h5")).read_bytes())
    assert shards[0] == shards[1]


def test_summary_is_a_column_per_scalar_in_plan_order_and_equals_the_table(directory):
    for seed in (2, 0):
        directory.publish(make_unit(seed), make_result(seed), {})
    directory.publish(make_unit(1), ProbeResult({}, {"other": Scalar(5, "s", "Other.")}), {})
    with open_run(directory.path) as run, open_run(directory.consolidate()) as whole:
        assert run.probes == whole.probes == ["ldlc"]
        assert run.published == whole.published == [make_unit(seed).unit_id for seed in range(3)]
        columns = run.summary("ldlc")
        assert list(columns) == ["slope", "area", "other"]
        np.testing.assert_array_equal(columns["slope"].values, [0.25, np.nan, 2.25])
        np.testing.assert_array_equal(columns["slope"].low, [0, np.nan, 0])
        assert columns["slope"].n.tolist() == [7, -1, 7]
        assert (columns["other"].unit, columns["slope"].group) == ("s", "local")
        np.testing.assert_equal({k: vars(v) for k, v in whole.summary("ldlc").items()},
                                {k: vars(v) for k, v in columns.items()})  # fmt: skip
    with h5py.File(directory.path / "run.h5") as file:
        table = file["summary/ldlc"]
        np.testing.assert_array_equal(table["slope"][()], columns["slope"].values)
        assert [raw.decode() for raw in table["sample"][()]] == ["digit-0", "digit-1", "digit-2"]
        assert table["slope"].attrs["unit"].decode() == "1/px"
        assert table["slope"].dims[0][0].name == "/summary/ldlc/unit"


def test_plain_h5py_sees_values_units_and_dimension_scales(shard_of):
    with h5py.File(shard_of(size=3000)) as file:
        arrays = file[f"units/{make_unit().unit_id}/arrays"]
        assert list(arrays) == ["zeta", "alpha", "direction", "k"]
        assert arrays["zeta"].fletcher32
        assert arrays["zeta"].compression == "gzip"
        assert [axis[0].name.rsplit("/")[-1] for axis in arrays["zeta"].dims] == ["direction", "k"]
        assert arrays["k"].is_scale
        assert arrays["alpha"].dims[0][0] == arrays["k"]
        texts = ("unit", "description", "dims", "encoding-type", "encoding-version")
        assert all(arrays["zeta"].attrs[name].dtype.kind == "S" for name in texts)
        record = json.loads(file[f"units/{make_unit().unit_id}/record"][()])
        assert [scalar["name"] for scalar in record["summary"]] == ["slope", "area"]
        assert record["summary"][0] == {
            "name": "slope", "value": 0.25, "unit": "1/px", "description": "Slope.", "interval": [0.0, 0.5], "n": 7,
            "group": "local",
        }  # fmt: skip
        assert record["summary"][1]["value"] == "NaN"
        assert record["checks"][0]["passed"] is True
        assert (record["status"], record["message"]) == ("ok", "a remark")


def test_every_element_says_what_it_is(directory, shard_of):
    seen = []

    def look(name, node):
        seen.append(name)
        assert node.attrs["encoding-type"], name
        assert node.attrs["encoding-version"] == store_schema.VERSION_TEXT.encode(), name

    for path in (shard_of(), directory.consolidate()):
        with h5py.File(path) as file:
            file.visititems(look)
    assert len(seen) > 20


def test_opens_in_xarray(directory, shard_of):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    shard_of()
    group = f"units/{make_unit().unit_id}"
    with xarray.open_dataset(directory.consolidate(), engine="h5netcdf", group=f"{group}/arrays") as arrays:
        assert arrays["zeta"].dims == ("direction", "k")
    with xarray.open_dataset(directory.path / "run.h5", engine="h5netcdf", group="summary/ldlc") as summary:
        assert summary["slope"].values.tolist() == [0.25]


def test_a_shard_of_several_units_is_read(directory):
    pack = directory.path / "shards" / "00" / "pack.first.h5"
    pack.parent.mkdir()
    with new_file(pack, store_schema.SHARD_FORMAT) as file:
        units = file.create_group("units", track_order=True)
        for seed in range(3):
            write_unit(units, make_unit(seed), make_result(seed), {})
    assert directory.published() == {make_unit(seed).unit_id for seed in range(3)}
    with open_run(directory.path) as run, open_run(directory.consolidate()) as whole:
        assert [r.unit for r in run.units()] == [r.unit for r in whole.units()] == [make_unit(s) for s in range(3)]


def test_missing_is_what_the_plan_has_and_the_run_has_not(directory):
    directory.publish(make_unit(1), make_result(1), {})
    directory.record_failure(make_unit(2), "it broke", error_type="ValueError", provenance={"host": "here"})
    for source in (directory.path, directory.consolidate()):
        with open_run(source) as run:
            assert run.missing == [make_unit(0).unit_id]
            (failure,) = run.failures.values()
            assert (failure.unit, failure.message, failure.error_type) == (make_unit(2), "it broke", "ValueError")
            assert failure.provenance == {"host": "here"}
            assert (run.plan, run.plan_digest) == (make_plan(), "digest")


def test_arrays_of_a_closed_run_are_a_clear_error(directory, shard_of):
    shard_of()
    for source in (directory.path, directory.consolidate()):
        with open_run(source) as run:
            (record,) = run.units()
        with pytest.raises(StoreError, match="was closed"):
            record.arrays["zeta"]
        with pytest.raises(StoreError, match="was closed"):
            record.pictures["found"]


def test_results_come_one_by_one_and_an_unknown_probe_is_named(directory, shard_of):
    shard_of()
    with open_run(directory.path) as run:
        ((unit, result),) = run.results("ldlc")
        assert unit == make_unit()
        assert_equal_results(result, make_result())
        with pytest.raises(StoreError, match="no results of probe 'spectrum'"):
            run.results("spectrum")


@pytest.mark.parametrize(
    "result",
    [
        ProbeResult({"x": Array(np.zeros(2, np.longdouble), ("k",), "1", "Too wide.")}, {}),
        ProbeResult({"x": Array(np.array(["\ud800"]), ("k",), "1", "Half a pair.")}, {}),
        ProbeResult({}, {"unit_id": Scalar(1, "1", "Reserved.")}),
        ProbeResult({"_nc4_non_coord_x": Array(np.zeros(2), ("k",), "1", "Reserved.")}, {}),
        ProbeResult({}, {"x": Scalar(1, "1", "d" * 70_000)}),
        ProbeResult({}, {}, provenance={"x": object()}),
        ProbeResult({}, {}, pictures={"x": Picture(np.zeros((2, 2), np.uint8), "d" * 70_000)}),
    ],
    ids=["longdouble", "surrogate", "scalar-name", "array-name", "description", "provenance", "picture"],
)
def test_what_cannot_be_stored_is_the_plugins_error_and_leaves_nothing(directory, result):
    with pytest.raises(PluginError):
        directory.publish(make_unit(), result, {})
    assert not list(directory.path.glob("shards/*/*"))
