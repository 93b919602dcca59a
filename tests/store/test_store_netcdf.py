"""The run.h5 of a real run, in the tools that researchers have: plain h5py, and xarray by both of its HDF5 engines."""

import json

import h5py
import numpy as np
import pytest

from equivengine.runtime.config import ProbeRequest, RunConfig
from equivengine.runtime.engine import execute
from equivengine.runtime.registry import from_environment
from equivengine.store import open_run

xarray = pytest.importorskip("xarray")
ENGINES = [("h5netcdf", "h5netcdf"), ("netcdf4", "netCDF4")]
# Pictures have no dimension scales; without this, h5netcdf warns before it makes names up.
MADE_UP = {"h5netcdf": {"phony_dims": "sort"}, "netcdf4": {}}


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    """Two probes on some digits: one with arrays that are chunked, one with texts (labels)."""
    out = tmp_path_factory.mktemp("digits") / "run"
    probes = [ProbeRequest(name="spectrum", set={"vectors": 16}), ProbeRequest(name="projection", set={"pairs": 0})]
    config = RunConfig(probes=probes, models=["digits"], images=["digits"], limit=2, out=str(out))
    execute(config, registry=from_environment())
    return out / "run.h5"


@pytest.fixture(params=ENGINES, ids=[name for name, _ in ENGINES])
def opened(request, run_file):
    """Open a group of the run by one of the engines."""
    engine, package = request.param
    pytest.importorskip(package)

    def open_group(group=None, **options):
        return xarray.open_dataset(run_file, engine=engine, group=group, **options)

    open_group.tree = lambda: xarray.open_datatree(run_file, engine=engine, **MADE_UP[engine])
    return open_group


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def test_summary_tables_have_values_units_and_descriptions(opened, run_file):
    with open_run(run_file) as run:
        for probe in run.probes:
            columns = run.summary(probe)
            with opened(f"summary/{probe}") as table:
                assert table.sizes == {"unit": len(run.units(probe))}
                assert [text(value) for value in table["unit_id"].values] == [r.unit_id for r in run.units(probe)]
                assert text(table["sample"].values[0]).startswith("digit-0000")
                assert set(columns) < set(table)
                for name, column in columns.items():
                    assert table[name].dims == ("unit",)
                    np.testing.assert_array_equal(table[name].values, column.values)
                    assert table[name].attrs.get("unit", "") == column.unit
                    assert table[name].attrs.get("description", "") == column.description


def test_arrays_have_values_and_the_dimensions_of_the_probe(opened, run_file):
    with open_run(run_file) as run:
        for record in run.units():
            with opened(f"units/{record.unit_id}/arrays") as arrays:
                assert set(arrays.variables) == set(record.arrays)
                for name, array in record.arrays.items():
                    found = arrays[name]
                    assert found.dims == array.dims
                    assert found.attrs["description"] == array.description
                    values = found.values
                    if array.data.dtype.kind == "U":
                        values = np.array([text(value) for value in values.ravel()]).reshape(values.shape)
                    np.testing.assert_array_equal(values, array.data)


def test_scalars_and_checks_are_json_in_each_unit(opened, run_file):
    with open_run(run_file) as run:
        record = run.units("spectrum")[0]
        with opened(f"units/{record.unit_id}") as unit:
            stored = json.loads(text(unit["record"].values[()]))
        assert [scalar["name"] for scalar in stored["summary"]] == list(record.summary)
        for given, scalar in zip(stored["summary"], record.summary.values(), strict=True):
            np.testing.assert_array_equal(float(given["value"]), scalar.value)
            assert given.get("unit", "") == scalar.unit
            assert given.get("interval") == (None if scalar.interval is None else list(scalar.interval))
        for given, (name, check) in zip(stored["checks"], record.checks.items(), strict=True):
            assert (given["name"], given["passed"], given["bound"]) == (name, check.passed, check.bound)


def test_the_whole_file_opens_as_a_tree(opened, run_file):
    with opened.tree() as tree:
        assert {"/summary/spectrum", "/summary/projection", "/manifest"} <= set(tree.groups)
        assert tree.attrs["format"] == "equivengine-run"
        assert tree["manifest"].sizes == {"entry": 3}


def test_plain_h5py_reads_attributes_dimensions_and_values(run_file):
    with h5py.File(run_file) as file, open_run(run_file) as run:
        for record in run.units():
            arrays = file[f"units/{record.unit_id}/arrays"]
            for name, array in record.arrays.items():
                node = arrays[name] if name in arrays else arrays[f"_nc4_non_coord_{name}"]
                assert node.attrs["dims"].decode() == ",".join(array.dims)
                for dim, axis in zip(array.dims, node.dims, strict=True):
                    if name != dim:
                        assert axis[0].name.rsplit("/")[-1] == dim
                values = np.char.decode(node[()], "utf-8") if node.dtype.kind == "S" else node[()]
                np.testing.assert_array_equal(values, array.data)
        slope = file["summary/spectrum/s_1"]
        assert slope.attrs["unit"].decode() == "embedding / pixel"
