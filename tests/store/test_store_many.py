"""Runs of many units: what is kept of each is some dozens of bytes, and none is read before it is asked for."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_cases import make_result, make_unit, write_unit
from test_store_round_trip import assert_equal_results

from equivengine.contracts.result import ProbeResult, Scalar
from equivengine.contracts.units import UnitIds, UnitList, plan_digest
from equivengine.contracts.units_as_json import units_to_json
from equivengine.store import (
    RunDirectory,
    consolidate,
    digests,
    inspect_run,
    layout,
    open_run,
    run,
    schema,
    units,
)
from equivengine.store.columns import scalar_columns
from equivengine.store.files import new_file
from equivengine.store.shards import Shards, in_order, same_units

IDS = [make_unit(seed).unit_id for seed in range(12)]
_some = st.lists(st.sampled_from(IDS), unique=True)


@given(own=_some, packed=_some)
def test_shards_are_a_mapping_in_which_a_shard_of_its_own_counts(own, packed):
    found = Shards(UnitIds.of(sorted(own)), {unit_id: f"shards/00/pack.{unit_id[:4]}.h5" for unit_id in packed})
    wanted = {unit_id: f"shards/00/pack.{unit_id[:4]}.h5" for unit_id in packed}
    wanted |= {unit_id: schema.shard_path(unit_id) for unit_id in own}
    assert dict(found) == wanted
    assert list(found) == sorted(wanted)
    assert len(found) == len(wanted)
    assert found.keys() == set(wanted)
    assert all((unit_id in found) == (unit_id in wanted) for unit_id in IDS)
    with pytest.raises(KeyError):
        found["a" * 64]


@given(planned=_some, present=_some)
def test_the_order_is_that_of_the_plan_and_strangers_follow_sorted(planned, present):
    wanted = [one for one in planned if one in present] + sorted(one for one in present if one not in planned)
    assert list(in_order(UnitIds.of(planned), present)) == wanted


@given(one=_some, other=_some)
def test_units_are_the_same_in_whatever_order(one, other):
    assert same_units(UnitIds.of(one), UnitIds.of(other)) == (set(one) == set(other))


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.floats() | st.none(), max_size=3), max_size=6))
def test_columns_hold_what_each_unit_has_and_nothing_elsewhere(rows):
    summaries = [
        {name: Scalar(1.0 if v is None else v, "1", "", n=None if v is None else 3) for name, v in row.items()}
        for row in rows
    ]
    columns = scalar_columns(iter(summaries))
    assert list(columns) == list(dict.fromkeys(name for row in rows for name in row))
    for name, column in columns.items():
        cells = [summary.get(name) for summary in summaries]
        np.testing.assert_array_equal(column.values, [np.nan if cell is None else cell.value for cell in cells])
        assert column.n.tolist() == [-1 if cell is None or cell.n is None else cell.n for cell in cells]
        assert np.isnan(column.low).all()


def grouped(path, units):
    """A directory whose plan says what its units share."""
    listed = UnitList.of(units)
    return RunDirectory.create_or_open(path, {"config": {}, **units_to_json(listed)}, plan_digest(listed.ids))


@pytest.fixture
def directory(tmp_path):
    """Units of two probes, in turns; the last one of each is missing."""
    made = [make_unit(seed, probe) for seed in range(4) for probe in ("ldlc", "spectrum")]
    found = grouped(tmp_path / "run", made)
    for unit in made[:6]:
        found.publish(unit, make_result(unit.seed), {})
    found.consolidate()
    return found


@pytest.fixture(params=["", "run.h5"])
def source(request, directory):
    return directory.path / request.param


def test_no_unit_is_read_before_it_is_asked_for(source, monkeypatch):
    monkeypatch.setattr(run, "KEPT_UNITS", 0)
    with monkeypatch.context() as patched:
        patched.setattr(units, "read_record", lambda group: pytest.fail("a unit was read"))
        with open_run(source) as opened:
            assert (len(opened.published), len(opened.missing)) == (6, 2)
            assert opened.probes == ["ldlc", "spectrum"]
    read = []
    original = units.read_record
    monkeypatch.setattr(units, "read_record", lambda group: read.append(1) or original(group))
    with open_run(source) as opened:
        assert next(opened.each("spectrum")).unit == make_unit(0, "spectrum")
        assert len(read) == 1
        opened.summary("ldlc")
        assert len(read) == 4


def test_a_run_of_many_units_has_the_content_of_one_of_few(source, monkeypatch):
    with open_run(source) as few:
        monkeypatch.setattr(run, "KEPT_UNITS", 0)
        with open_run(source) as many:
            assert many.probes == few.probes
            assert [record.unit for record in many.units()] == [record.unit for record in few.units()]
            for probe in few.probes:
                assert [record.unit_id for record in many.each(probe)] == [one.unit_id for one in few.units(probe)]
                np.testing.assert_equal(
                    {name: vars(column) for name, column in many.summary(probe).items()},
                    {name: vars(column) for name, column in few.summary(probe).items()},
                )
                for (unit, result), seed in zip(many.results(probe), range(3), strict=True):
                    assert unit == make_unit(seed, probe)
                    assert_equal_results(result, make_result(seed))
            assert list(many.each("none")) == []
            with pytest.raises(run.StoreError, match="no results of probe 'none'"):
                many.summary("none")


def test_units_that_the_plan_does_not_group_are_read_for_their_probe(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "KEPT_UNITS", 0)
    made = [make_unit(0), make_unit(1, "spectrum")]
    listed = RunDirectory.create_or_open(tmp_path / "listed", {"units": [unit.unit_id for unit in made]}, "digest")
    other = grouped(tmp_path / "other", made[:1])
    for where in (listed, other):
        for unit in made:
            where.publish(unit, make_result(unit.seed), {})
        with open_run(where.path) as opened:
            assert opened.probes == ["ldlc", "spectrum"]


def test_a_shard_of_its_own_counts_where_a_pack_holds_the_unit_too(directory):
    pack = directory.path / "shards" / "00" / "pack.first.h5"
    pack.parent.mkdir(exist_ok=True)
    with new_file(pack, schema.SHARD_FORMAT) as file:
        group = file.create_group("units", track_order=True)
        for seed in (0, 3):
            write_unit(group, make_unit(seed), make_result(seed + 10), {})
    assert len(directory.published()) == 7
    with open_run(directory.path) as opened, open_run(directory.consolidate()) as whole:
        for found in (opened, whole):
            assert [result.summary["slope"].value for _, result in found.results("ldlc")] == [0.25, 1.25, 2.25, 13.25]
    assert not inspect_run(directory.path).findings


def test_consolidation_keeps_less_than_300_bytes_of_a_unit(tmp_path, monkeypatch):
    """Of Python's memory, at its peak: what 300 more units add, beside the plan."""
    result = ProbeResult({}, {"a": Scalar(1.5, "1", "A number."), "b": Scalar(0.1, "px", "Another.")})
    peaks = []
    for count in (50, 350):
        made = [replace(make_unit(), samples=make_unit(number).samples) for number in range(count)]
        directory = grouped(tmp_path / str(count), made)
        for unit in made:
            directory.publish(unit, result, {})
        consolidate.write_run_file(tmp_path / f"warm-{count}", directory.path)
        stored = layout.read_plan(directory.path)
        monkeypatch.setattr(digests, "_HASH_STEP", 64 << 10)  # files larger than that are in memory in parts
        monkeypatch.setattr(layout, "read_plan", lambda root, stored=stored: stored)
        tracemalloc.start()
        consolidate.write_run_file(tmp_path / f"{count}.h5", directory.path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        monkeypatch.undo()
    assert (peaks[1] - peaks[0]) / 300 < 300
