"""An export of many units: two passes, no unit is kept, and what is in memory does not grow with their number."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
from run_cases import PROVENANCE, published, scalar, unit, write_run

from equivengine.contracts.result import Check
from equivengine.errors import StoreError
from equivengine.report import export, formats, wide
from equivengine.report.export import export_document, export_tables, export_units
from equivengine.report.tables import each_row
from equivengine.store import open_run
from equivengine.store.layout import Failure
from equivengine.store.run import UnitRecord


class Many:
    """A run whose units are made as they are asked for; counts those that somebody holds, and passes."""

    path = Path("/runs/many")
    plan_digest = "digest"
    missing = unneeded = ()

    def __init__(self, count, failed=0):
        self.plan = {"units": []}
        self.count = count
        self.failures = {f"{place:064x}": Failure(unit(place), "no luck", "ValueError") for place in range(failed)}
        self.passes = self.held = self.most_held = 0

    def each(self):
        self.passes += 1
        for place in range(len(self.failures), self.count):
            record = self.record(place)
            self.held += 1
            weakref.finalize(record, self._let_go)
            self.most_held = max(self.most_held, self.held)
            yield record
            del record

    def _let_go(self):
        self.held -= 1

    def record(self, place):
        return UnitRecord(
            unit_id=f"{place:064x}",
            unit=unit(place, params={"step": place % 7}),
            status="ok",
            message="",
            summary={f"s_{k}": scalar(place + 0.5, f"number {k}", interval=(0, 1e9), n=place) for k in range(6)},
            checks={"small": Check.at_most(place, 990, "it is small")},
            arrays={},
            provenance={**PROVENANCE, "seconds": 0.5, "started": f"2026-01-01T{place:06d}"},
            probe_provenance={},
            pictures={},
        )


WAYS = {
    "csv": lambda run, out: export_tables(run, out, "csv", overwrite=True),
    "parquet": lambda run, out: export_tables(run, out, "parquet", overwrite=True),
    "long": lambda run, out: export_units(run, out / "long.csv", "csv", long=True, overwrite=True),
    "json": lambda run, out: export_document(run, out / "all.json", overwrite=True),
}


def traced(call):
    """What a call returns, and the most that Python's memory grew meanwhile, in bytes."""
    gc.collect()
    tracemalloc.start()
    found = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found, peak


@pytest.mark.parametrize("way", WAYS)
def test_memory_does_not_grow_with_the_number_of_units(way, tmp_path, monkeypatch):
    """A further unit adds less than a tenth of what its row takes (lists that Python keeps for the next tuples)."""
    if way == "parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(formats, "_LINES", 4096)
    monkeypatch.setattr(formats, "GROUP_CELLS", 2000)
    WAYS[way](Many(10), tmp_path)  # what is imported, and kept once
    kept, row = traced(lambda: list(each_row(Many(50))))
    peaks = []
    for count in (60, 260):
        tries = []
        for _ in range(2):  # when Python lets go of what lies in circles differs from time to time
            run = Many(count)
            tries.append(traced(lambda run=run: WAYS[way](run, tmp_path))[1])
            assert run.most_held <= 2
            assert run.passes <= 3
        peaks.append(min(tries))
    assert (peaks[1] - peaks[0]) / 200 < 0.1 * row / len(kept)


def test_failures_stand_in_the_order_of_the_plan_among_units_that_are_read_one_by_one(tmp_path):
    units = [unit(place) for place in range(6)]
    entries = [(one, "no luck" if place % 2 else published(float(place))) for place, one in enumerate(units)]
    strange = [unit(7), unit(8)]  # of another plan
    path = write_run(tmp_path / "run", *entries)
    for one in strange:
        (source,) = write_run(tmp_path / one.unit_id, (one, published(1.0))).glob(f"shards/*/{one.unit_id}.h5")
        (path / source.relative_to(tmp_path / one.unit_id)).parent.mkdir(exist_ok=True)
        source.rename(path / source.relative_to(tmp_path / one.unit_id))
    with open_run(path) as run:
        wanted = [one.unit_id for one in units] + sorted(one.unit_id for one in strange)
        assert [row.unit_id for row, _ in each_row(run)] == wanted


def test_row_groups_hold_what_one_group_holds(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    (whole, *_) = export_tables(Many(50, failed=3), tmp_path / "whole", "parquet")
    monkeypatch.setattr(formats, "GROUP_CELLS", 700)
    (parts, *_) = export_tables(Many(50, failed=3), tmp_path / "parts", "parquet")
    monkeypatch.setattr(formats, "GROUP_CELLS", 1 << 16)
    monkeypatch.setattr(formats, "GROUP_TEXT", 2000)
    (texts, *_) = export_tables(Many(50, failed=3), tmp_path / "texts", "parquet")
    assert (whole.rows, parts.rows, texts.rows) == (50, 50, 50)
    groups = [parquet.ParquetFile(file.path).num_row_groups for file in (whole, parts, texts)]
    assert groups[0] == 1
    assert min(groups[1:]) > 3
    table = parquet.read_table(whole.path)
    for file in (parts, texts):
        assert parquet.read_table(file.path).equals(table, check_metadata=True)
    empty = parquet.ParquetFile(tmp_path / "whole" / "columns.parquet")
    assert empty.num_row_groups == 1


class Fails(Many):
    """A run of which the second pass finds one unit gone."""

    def record(self, place):
        if self.passes == 2 and place == 5:
            raise StoreError("a shard is gone")
        return super().record(place)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_unit_that_cannot_be_read_again_leaves_no_file_and_no_complaint(form, tmp_path, monkeypatch):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with pytest.raises(StoreError, match="a shard is gone"):
        export_tables(Fails(9), tmp_path / "out", form)
    gc.collect()
    assert list((tmp_path / "out").iterdir()) == []
    assert complaints == []


class Changes(Many):
    """A run in which somebody computes a unit anew while it is exported."""

    def record(self, place):
        record = super().record(place)
        more = {"another": scalar(1.0, "another")} if self.passes == 2 and place == 5 else {}
        return replace(record, summary={**record.summary, **more})


def test_a_unit_that_changes_between_the_passes_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="was replaced while it was read"):
        export_tables(Changes(9), tmp_path / "out", "csv")
    assert list((tmp_path / "out").iterdir()) == []


def test_integers_that_no_float_holds_beside_fractions_are_texts(tmp_path):
    entries = [(unit(k, params={"p": p}), published(1.0)) for k, p in enumerate((1 << 70, 2.5, 3))]
    path = write_run(tmp_path / "run", *entries)
    with open_run(path) as run:
        (table,) = wide.wide_tables(row for row, _ in each_row(run))
        (column,) = (place for place, column in enumerate(table.columns) if column.name == "param.p")
        assert table.columns[column].kind == "text"
        cells = [next(iter(table.rows_of(row)))[column] for row, _ in each_row(run)]
        assert cells == [json.dumps(1 << 70), "2.5", "3"]
        pytest.importorskip("pyarrow")
        assert export.export_tables(run, tmp_path / "out", "parquet")[0].rows == 3
