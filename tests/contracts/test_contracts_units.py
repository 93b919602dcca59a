"""Lists of units say the same as the units themselves, whatever these have in common."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivengine.contracts.unit import SampleRef, Unit
from equivengine.contracts.units import Batches, Group, UnitIds, UnitList
from equivengine.contracts.units_as_json import SampleTable, batch_sizes_from_json, units_from_json, units_to_json
from equivengine.store import schema

LIMIT = 1000
WORDS = st.sampled_from(["a", "b", 'quote " and \\', "µ\n", ""])
SAMPLES = st.builds(
    SampleRef, images=WORDS, index=st.integers(0, 5), id=WORDS, digest=WORDS, label=st.none() | st.sampled_from("12")
)
UNITS = st.builds(
    Unit,
    probe=WORDS,
    probe_version=st.just("1"),
    params=st.sampled_from(["{}", '{"b":1,"a":[1e-4,"x"]}']),
    model=st.sampled_from(["toy", "tooy"]),
    weights_digest=st.just("w"),
    samples=st.lists(SAMPLES, min_size=1, max_size=3).map(tuple),
    seed=st.integers(0, 2),
    precision=st.just("fp32"),
    references=st.lists(SAMPLES, max_size=2).map(tuple),
)


@given(st.lists(UNITS, max_size=12))
def test_a_list_gives_back_its_units_their_ids_and_survives_json_and_pickling(units):
    found = UnitList.of(units)
    data = json.loads(json.dumps(units_to_json(found)))
    for one in (found, units_from_json(data, LIMIT), pickle.loads(pickle.dumps(found))):
        assert list(one) == units
        assert [one[place] for place in range(len(units))] == units
        assert list(one.ids) == [replace(unit).unit_id for unit in units]  # a copy computes its id itself
        assert [unit.unit_id for unit in one] == list(one.ids)
    assert units_to_json(units_from_json(data, LIMIT)) == data


@given(st.lists(UNITS, max_size=12))
def test_without_repetitions_each_unit_stands_where_it_came_first(units):
    expected = list(dict.fromkeys(unit.unit_id for unit in units))
    found = UnitList.of(units).without_repetitions()
    assert list(found.ids) == expected
    assert [replace(unit).unit_id for unit in found] == expected


IDS = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(st.lists(IDS, max_size=20), IDS)
def test_ids_are_found_where_they_stand(ids, other):
    found = UnitIds.of(ids)
    assert list(found) == list(dict.fromkeys(ids))
    for place, unit_id in enumerate(found):
        assert found.find(unit_id) == place
        assert unit_id in found
        assert (unit_id.upper() in found) == (unit_id.upper() == unit_id)
    assert (other in found) == (other in ids)
    assert found[::-1] == list(found)[::-1]


def test_ids_that_begin_alike_are_told_apart():
    alike = [("ab" * 8 + f"{number:048x}") for number in range(5)]
    found = UnitIds.of(alike)
    assert [found.find(unit_id) for unit_id in alike] == list(range(5))
    assert found.find("ab" * 8 + "f" * 48) is None


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab " * 32, "ab" * 33, None, 7])
def test_what_is_no_id_is_not_among_them(text):
    assert text not in UnitIds.of(["ab" * 32])


def unit(index, model="toy"):
    return Unit("p", "1", "{}", model, "w", (SampleRef("s", index, f"{index}", f"d{index}"),), 0, "fp32")


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=5))
def test_batches_are_cut_in_order_and_found_by_place(sizes):
    count = sum(size * times for size, times in sizes)
    units = UnitList.of(unit(index) for index in range(count))
    batches = Batches(units, sizes)
    assert [one for batch in batches for one in batch] == list(units)
    assert list(map(len, batches)) == [size for size, times in sizes for _ in range(times)]
    assert [batches[number] for number in range(len(batches))] == list(batches)
    assert batches.starts().tolist() == [batches.places(number).start for number in range(len(batches))]
    for place in range(count):
        assert place in batches.places(batches.holding(place))
    assert batch_sizes_from_json([list(pair) for pair in batches.sizes]) == batches.sizes


@pytest.mark.parametrize("sizes", [[(3, 1)], [(2, 1), (3, 1)], [(0, 2), (4, 1)], [(-4, -1)], [(2.0, 2)], [(True, 4)]])
def test_batches_that_do_not_fit_their_units_are_refused(sizes):
    with pytest.raises(ValueError, match="cannot be cut"):
        Batches(UnitList.of(unit(index) for index in range(4)), sizes)


def test_units_that_share_all_but_their_samples_are_one_group_and_models_share_rows():
    units = UnitList.of([*(unit(index) for index in range(50)), *(unit(index, "other") for index in range(50))])
    data = units_to_json(units)
    assert len(data["groups"]) == 2
    assert data["tuples"] == [{"size": 1, "rows": {"first": 0, "count": 50}}]
    assert data["samples"][0]["index"] == {"first": 0, "count": 50}


def test_the_limit_holds_for_units_that_no_one_wrote_out():
    data = units_to_json(UnitList.of(unit(index) for index in range(50)))
    data["groups"] *= 30
    with pytest.raises(ValueError, match="more than 1000 units"):
        units_from_json(data, LIMIT)


def test_a_unit_more_is_its_id_and_the_rows_of_its_samples_in_memory():
    samples = SampleTable(SampleRef("s", index, f"{index}", f"d{index}") for index in range(2000))
    rows = np.arange(2000, dtype=np.int32)[:, None]

    def bytes_of(models):
        groups = [Group(Unit("p", "1", "{}", f"m{model}", "w", (), 0, "fp32"), rows) for model in range(models)]
        tracemalloc.start()
        units = UnitList(samples, groups)
        units.ids.find(units.ids[0])
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(units) == 2000 * models
        return kept

    bytes_of(1)
    assert (bytes_of(21) - bytes_of(1)) / 40_000 < 48  # 32 of the id, 12 to look it up; rows are shared


def test_a_million_units_fit_a_plan_file_with_much_room():
    samples = SampleTable(SampleRef("imagenet:/data", index, f"val/{index:08}.JPEG", "ab" * 32) for index in range(500))
    rows = np.arange(500, dtype=np.int32)[:, None]
    units = UnitList(samples, [Group(Unit("p", "1", "{}", f"m{n}", "w" * 64, (), 0, "fp32"), rows) for n in range(20)])
    text = schema.to_json(units_to_json(units), "the plan")
    assert 100 * len(text) < schema.MAX_JSON_FILE_BYTES / 4  # 50,000 images are a hundred times as many
    assert 100 * schema.values_in(text) < schema.MAX_JSON_VALUES / 4
