"""`Run.to_xarray`: everything that is stored, labeled, and read only where it is used."""

import dataclasses
import json
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from store_cases import make_result, make_unit
from test_store_lazy import bytes_read

from equivengine.contracts.result import Array, Check, ProbeResult, Scalar
from equivengine.errors import EngineError, StoreError
from equivengine.store import RunDirectory, open_run

xarray = pytest.importorskip("xarray")


def publish(path, units, results):
    run = RunDirectory.create_or_open(path, {"units": [unit.to_json() for unit in units]}, "digest")
    for unit, result in zip(units, results, strict=True):
        run.publish(unit, result, {})
    return run


def only(name, data, *dims):
    return ProbeResult({name: Array(np.asarray(data), dims, "px", f"What {name} is.")}, {})


@pytest.fixture
def of(tmp_path):
    """The dataset of units with the given results, one after the other."""
    with_runs = []

    def make(*results, **options):
        units = [make_unit(seed) for seed in range(len(results))]
        run = open_run(publish(tmp_path / f"run{len(with_runs)}", units, results).path)
        with_runs.append(run)
        return run.to_xarray("ldlc", **options)

    yield make
    for run in with_runs:
        run.close()


@pytest.mark.parametrize("consolidated", [False, True])
def test_a_dataset_holds_what_units_hold(directory, consolidated):
    for seed in (2, 0, 1):
        directory.publish(make_unit(seed), make_result(seed), {})
    with open_run(directory.consolidate() if consolidated else directory.path) as run:
        ds = run.to_xarray("ldlc")
        records = run.units("ldlc")
        assert dict(ds.sizes) == {"unit": 3, "direction": 8, "k": 4}
        assert ds.unit_id.values.tolist() == [record.unit_id for record in records]
        assert ds["sample"].values.tolist() == ["digit-0", "digit-1", "digit-2"]
        assert set(ds.model.values) == {"digits"}
        assert set(ds.status.values) == {"ok"}
        assert set(ds["unit.message"].values) == {"a remark"}
        assert ds["unit.seed"].values.tolist() == [0, 1, 2]
        assert ds.slope.values.tolist() == [0.25, 1.25, 2.25]
        assert (ds.slope.attrs["units"], ds.slope.attrs["long_name"], ds.slope.attrs["group"]) == (
            "1/px", "Slope.", "local",
        )  # fmt: skip
        assert (ds["slope.low"].values.tolist(), ds["slope.high"].values.tolist()) == ([0.0] * 3, [0.5] * 3)
        assert ds["slope.n"].values.tolist() == [7, 7, 7]
        assert np.isnan(ds.area).all()
        assert "area.low" not in ds
        assert "area.n" not in ds
        assert ds["check.monotone"].values.tolist() == [1.0] * 3
        assert ds["check.monotone.bound"].values.tolist() == [2.0] * 3
        assert ds["check.monotone.passed"].dtype == bool
        assert ds.zeta.dims == ("unit", "direction", "k")
        assert ds.zeta.attrs == {"units": "1/px", "long_name": "Local constants."}
        np.testing.assert_array_equal(ds.zeta.values, [record.arrays["zeta"].data for record in records])
        assert ds.alpha.dtype == np.int64
        assert ds.attrs["plan_digest"] == "digest"
        ds.load()
    np.testing.assert_array_equal(ds.zeta[1, 2].values, make_result(1).arrays["zeta"].data[2])


def test_a_dataset_goes_to_netcdf_and_to_another_process(of, tmp_path):
    ds = of(make_result(0), make_result(1, size=5))
    assert pickle.loads(pickle.dumps(ds)).identical(ds)
    for engine in ("h5netcdf", "netcdf4"):
        pytest.importorskip(engine if engine == "h5netcdf" else "netCDF4")
        ds.to_netcdf(tmp_path / f"{engine}.nc", engine=engine)
        with xarray.open_dataset(tmp_path / f"{engine}.nc", engine=engine) as back:
            xarray.testing.assert_equal(back.load(), ds)


def test_shorter_arrays_are_padded_and_say_how_long_they_are(of):
    ds = of(only("course", [1.0, 2.0, 3.0], "step"), only("course", [4.0], "step"), only("course", [], "step"))
    assert ds["step.length"].values.tolist() == [3, 1, 0]
    np.testing.assert_array_equal(ds.course, [[1, 2, 3], [4, np.nan, np.nan], [np.nan] * 3])
    assert ds.course.attrs["padding"] == "NaN"
    np.testing.assert_array_equal(ds.course[1:, ::-2], [[np.nan, 4], [np.nan, np.nan]])
    assert ds.course[1, 2].isnull()


@pytest.mark.parametrize(
    ("dtype", "padded"),
    [("f2", "f2"), ("f4", "f4"), ("f8", "f8"), ("i1", "f2"), ("i2", "f4"), ("u4", "f8"), ("i8", "f8"), ("?", "f2")],
)
def test_padding_keeps_every_value(of, dtype, padded):
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" and np.dtype(dtype).itemsize < 8 else None
    data = np.array([info.min, info.max] if info else [0, 1]).astype(dtype)
    ds = of(only("x", data, "k"), only("x", data[:1], "k"))
    assert ds.x.dtype == np.dtype(padded)
    assert ds.x[0].values.astype(dtype).tolist() == data.tolist()
    assert of(only("x", data, "k")).x.dtype == np.dtype(dtype)  # nothing to pad: as it was


def test_integers_that_padding_would_round_are_an_error_and_not_rounded(of):
    good, bad = 2**53, 2**53 + 1
    ds = of(only("x", [good, -good], "k"), only("x", [bad], "k"))
    assert ds.x[0].values.tolist() == [good, -good]
    with pytest.raises(StoreError, match="would round"):
        ds.x.load()
    assert of(only("x", [bad], "k")).x.values.tolist() == [[bad]]


def test_texts_are_padded_with_nothing(of):
    ds = of(only("w", ["é", "longest"], "k"), only("w", ["b"], "k"))
    assert ds.w.values.tolist() == [["é", "longest"], ["b", ""]]
    assert ds.w.attrs["padding"] == '""'


def test_units_that_lack_an_array_or_a_scalar_have_nan(of):
    first = ProbeResult(
        {"x": Array(np.array([1, 2]), ("k",), "1", "")},
        {"s": Scalar(1, "1", "s", n=4), "t": Scalar(2, "1", "t", interval=(1, 3))},
        {"c": Check.at_most(1, 2, "c")},
    )
    ds = of(first, ProbeResult({}, {"s": Scalar(5, "1", "s")}))
    np.testing.assert_array_equal(ds.x, [[1, 2], [np.nan, np.nan]])
    np.testing.assert_array_equal(ds.t, [2, np.nan])
    np.testing.assert_array_equal(ds["t.low"], [1, np.nan])
    assert ds["s.n"].values.tolist() == [4, -1]
    np.testing.assert_array_equal(ds["check.c.passed"], [1, np.nan])


def test_a_coordinate_that_all_units_share_is_one(of):
    def unit(steps, first=0):
        arrays = {
            "step": Array(np.arange(first, first + steps), ("step",), "1", "Step."),
            "loss": Array(np.ones(steps), ("step",), "1", "Loss."),
        }
        return ProbeResult(arrays, {})

    ds = of(unit(3), unit(5))
    assert ds.step.dims == ("step",)
    assert float(ds.loss.sel(step=4).sum()) == 1
    other = of(unit(3), unit(3, first=1))
    assert "step" not in other.coords
    assert other["step.array"].values.tolist() == [[0, 1, 2], [1, 2, 3]]


def test_names_that_mean_two_things_are_told_apart(of):
    result = ProbeResult(
        {
            "norm": Array(np.ones(2), ("k",), "1", "An array called as a scalar."),
            "gram": Array(np.eye(2), ("k", "k"), "1", "A dimension twice."),
            "label": Array(np.array(["a"]), ("sample",), "1", "A dimension called as a coordinate."),
            "status": Array(np.zeros(1), ("norm",), "1", "And one called as a scalar."),
            "unit": Array(np.zeros(2), ("unit",), "1", "And as all units."),
        },
        {"norm": Scalar(7, "1", "norm"), "k": Scalar(8, "1", "called as a dimension")},
    )
    ds = of(result)
    assert (float(ds.norm[0]), float(ds.k[0])) == (7, 8)
    assert ds["norm.array"].dims == ("unit", "k.2")
    assert ds.gram.dims == ("unit", "k.2", "k.3")
    assert ds.label.dims == ("unit", "sample.2")
    assert ds["status.array"].dims == ("unit", "norm.2")
    assert ds["unit.array"].dims == ("unit", "unit.2")
    assert ds["sample"].values.tolist() == ["digit-0"]


def test_arrays_of_other_dimensions_are_variables_of_their_own(of):
    ds = of(only("x", np.ones(2), "a"), only("x", np.ones((2, 3)), "a", "b"), only("x", ["t", "u"], "a"))
    assert [ds[name].dims for name in ("x", "x.2", "x.3")] == [("unit", "a"), ("unit", "a", "b"), ("unit", "a")]
    assert [int(ds[name].notnull().sum()) for name in ("x", "x.2")] == [2, 6]
    assert ds["x.3"].values.tolist() == [["", ""], ["", ""], ["t", "u"]]


def test_arrays_can_be_chosen(of):
    results = [make_result(0), make_result(1)]
    assert set(of(*results, arrays=False).sizes) == {"unit"}
    assert "slope" in of(*results, arrays=False)
    chosen = of(*results, arrays=["alpha"])
    assert "alpha" in chosen
    assert "zeta" not in chosen
    assert "zeta" in of(*results, arrays="zeta")
    with pytest.raises(StoreError, match="no array called 'beta'"):
        of(*results, arrays=["alpha", "beta"])


def test_parameters_that_differ_are_coordinates_and_the_others_are_said_once(tmp_path):
    params = [{"solver": "lm", "steps": 3, "box": True}, {"solver": "gd", "steps": 5, "box": True}]
    units = [dataclasses.replace(make_unit(), params=json.dumps(p)) for p in params]
    with open_run(publish(tmp_path / "run", units, [make_result()] * 2).path) as run:
        ds = run.to_xarray("ldlc")
    assert ds["param.solver"].values.tolist() == ["lm", "gd"]
    assert ds["param.steps"].values.tolist() == [3, 5]
    assert json.loads(ds.attrs["params"]) == {"box": True}


def test_a_tree_has_a_dataset_for_each_probe_and_model(tmp_path):
    units = [
        make_unit(0),
        dataclasses.replace(make_unit(0), model="hf:/some/path"),
        dataclasses.replace(make_unit(0), model="hf:_some_path"),
        make_unit(0, probe="spectrum"),
    ]
    results = [make_result(0, size=size) for size in (8, 3, 3, 2)]
    with open_run(publish(tmp_path / "run", units, results).path) as run:
        tree = run.to_xarray()
        assert [node.path for node in tree.leaves] == [
            "/ldlc/digits", "/ldlc/hf:_some_path", "/ldlc/hf:_some_path.2", "/spectrum/digits",
        ]  # fmt: skip
        assert tree["ldlc/digits"].sizes["direction"] == 8
        assert tree["ldlc/hf:_some_path"].model.values.tolist() == ["hf:/some/path"]
        assert tree.attrs["published"] == 4
        assert run.to_xarray("ldlc").sizes == {"unit": 3, "direction": 8, "k": 4}
        one = run.to_xarray("ldlc", model="hf:/some/path")
        assert one.sizes == {"unit": 1, "direction": 3, "k": 4}
        assert "direction.length" not in one.coords
        with pytest.raises(StoreError, match="model 'resnet'"):
            run.to_xarray("ldlc", model="resnet")
        with pytest.raises(StoreError, match="no results of probe"):
            run.to_xarray("lipschitz")
        assert "zeta" not in run.to_xarray(arrays=["alpha"])["spectrum/digits"]


def test_nothing_large_is_read_before_it_is_used_and_only_what_is_selected(tmp_path):
    """20 units with 1 MiB each; one is wanted."""
    side = 512
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2**31, (20, side, side), dtype=np.int32)
    units = [make_unit(seed) for seed in range(20)]
    results = [only("image", image, "row", "column") for image in images]
    run = publish(tmp_path / "run", units, results)
    with open_run(run.consolidate()) as opened:
        before = bytes_read()
        tracemalloc.start()
        ds = opened.to_xarray("ldlc")
        assert bytes_read() - before < 1 << 20
        np.testing.assert_array_equal(ds.image[7, :, 5].values, images[7, :, 5])
        assert bytes_read() - before < 4 << 20
        picked = ds.image.isel(unit=[19, 0], row=slice(0, 4)).values
        read, peak = bytes_read() - before, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(picked, images[[19, 0], :4])
        assert read < 8 << 20
        assert peak < 4 << 20
        assert not ds.image._in_memory


_shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=4)
_key = st.integers(0, 1) | st.slices(2) | st.lists(st.integers(0, 1), max_size=3)


@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(shapes=st.lists(_shapes, min_size=2, max_size=4), keys=st.lists(st.tuples(_key, _key, _key), min_size=8))
def test_selections_of_stacked_arrays_equal_those_in_memory(tmp_path_factory, shapes, keys):
    shapes = [*shapes, (2, 2)]
    data = [np.arange(np.prod(shape), dtype="i4").reshape(shape) + 100 * unit for unit, shape in enumerate(shapes)]
    units = [make_unit(seed) for seed in range(len(data))]
    path = publish(tmp_path_factory.mktemp("x") / "run", units, [only("x", d, "a", "b") for d in data]).path
    with open_run(path) as run:
        lazy = run.to_xarray("ldlc").x
        memory = lazy.copy(deep=True).load()
        for unit, values in enumerate(data):
            np.testing.assert_array_equal(memory[unit, : values.shape[0], : values.shape[1]], values)
        assert int(memory.notnull().sum()) == sum(d.size for d in data)
        for key in keys:
            indexers = dict(zip(("unit", "a", "b"), key, strict=True))
            xarray.testing.assert_identical(lazy.isel(indexers).load(), memory.isel(indexers))


def test_after_the_run_is_closed_arrays_say_so(directory):
    directory.publish(make_unit(), make_result(), {})
    with open_run(directory.path) as run:
        ds = run.to_xarray("ldlc")
    assert ds.slope.values.tolist() == [0.25]
    with pytest.raises(StoreError, match="was closed"):
        ds.zeta.load()


def test_without_xarray_there_is_one_error_that_says_what_to_install(directory, monkeypatch):
    directory.publish(make_unit(), make_result(), {})
    monkeypatch.setitem(sys.modules, "xarray", None)
    monkeypatch.delitem(sys.modules, "equivengine.store.labelled", raising=False)
    monkeypatch.delattr("equivengine.store.labelled", raising=False)
    with open_run(directory.path) as run, pytest.raises(EngineError, match=r'pip install "equivengine\[xarray\]"'):
        run.to_xarray("ldlc")


def test_reading_a_run_imports_no_xarray():
    code = "import sys, equivengine.store; print([m for m in ('xarray', 'pandas', 'pyarrow') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
