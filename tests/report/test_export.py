"""Exported tables and documents: what is read back is what is stored, bit for bit; no text is a formula."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import struct
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivengine.contracts.result import Array, Check, Picture, ProbeResult, Scalar
from equivengine.contracts.unit import SampleRef, Unit
from equivengine.errors import EngineError, StoreError, UsageError
from equivengine.report.export import export_document, export_tables, export_units
from equivengine.report.formats import CsvWriter, write_rows
from equivengine.report.tables import Column, each_row
from equivengine.report.wide import wide_tables
from equivengine.store import RunDirectory, atomic, open_run

NASTY = "=cmd|' /C calc'!A0,\"x\"\r\n\ud880;µ"
VALUES = [0.1 + 0.2, -0.0, 5e-324, -1.7976931348623157e308, math.pi, math.nan, math.inf, -math.inf, 1e22, 2.0]


def unit(seed=0, probe="ldlc", params="{}", name=None):
    sample = SampleRef("folder:x", seed, name or f"{seed}.png", f"d{seed}")
    return Unit(probe, "1", params, "digits", "w" * 64, (sample,), seed, "fp32", references=(sample,))


def result(value, *, interval=None, n=None, message="", passed=True):
    return ProbeResult(
        {"x": Array(np.ones(3), ("k",), "1", "")},
        {"s": Scalar(value, "1/px", "a slope, steep", interval=interval, n=n, group="g"), "t": Scalar(1, "1", "t")},
        {"c": Check(passed, value, 1.0, "it holds")},
        message=message,
        pictures={"p": Picture(np.zeros((2, 2), np.uint8), "p")},
    )


@pytest.fixture
def run(tmp_path):
    """Units of every value, one of another probe, two failures (one of them of a probe that has nothing else)."""
    units = [unit(seed, params=json.dumps({"h": seed % 2, "same": 1})) for seed in range(len(VALUES))]
    units += [unit(0, "spectrum"), unit(50, name=NASTY), unit(51, "lsb")]
    directory = RunDirectory.create_or_open(tmp_path / "run", {"units": [u.to_json() for u in units]}, "digest")
    for seed, value in enumerate(VALUES):
        given = result(value, interval=(0.1, 0.7) if seed == 0 else None, n=seed or None, message="+1" * (seed == 3))
        directory.publish(units[seed], given, {"seconds": 0.25, "device": {"name": "a processor"}})
    directory.publish(units[-3], result(3.5), {})
    directory.record_failure(units[-2], NASTY, error_type="DataError", provenance={"seconds": 1.5})
    directory.record_failure(units[-1], "no", error_type="ValueError")
    with open_run(directory.path) as opened:
        yield opened


def same(found, stored):
    """Equal in every bit, but for the payload of NaN."""
    return (math.isnan(found) and math.isnan(stored)) or struct.pack("<d", found) == struct.pack("<d", stored)


def read_csv(path):
    """As any reader of RFC 4180 does; dictionaries."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def unit_rows(run, probe=None):
    return [row for row, _ in each_row(run, probe)]


def as_csv(columns, rows):
    file = io.BytesIO()
    write_rows(CsvWriter(file, columns, {}), rows)
    return file.getvalue()


def as_stored(text):
    return text.removeprefix("'")


def test_csv_has_a_row_for_each_unit_and_every_number_comes_back(run, tmp_path):
    written = export_tables(run, tmp_path / "out", "csv")
    assert [file.path.name for file in written] == [
        "units-ldlc.csv", "units-spectrum.csv", "units-lsb.csv", "scalars.csv", "checks.csv", "columns.csv",
    ]  # fmt: skip
    rows = read_csv(tmp_path / "out" / "units-ldlc.csv")
    assert len(rows) == len(VALUES) + 1
    for seed, (row, value) in enumerate(zip(rows, VALUES, strict=False)):
        assert same(float(row["s"]), value)
        assert same(float(row["check.c"]), value)
        assert (row["check.c.passed"], row["check.c.bound"]) == ("true", "1.0")
        assert (row["s.low"], row["s.high"]) == (("0.1", "0.7") if seed == 0 else ("", ""))
        assert row["s.n"] == (str(seed) if seed else "")
        assert row["param.h"] == str(seed % 2)
        assert (row["sample"], row["unit.seed"], row["unit.seconds"]) == (f"{seed}.png", str(seed), "0.25")
        assert (row["status"], row["unit.error"], row["unit.device"]) == ("ok", "", "a processor")
    assert as_stored(rows[3]["unit.message"]) == "+1"
    assert [row["unit_id"] for row in rows] == [row.unit_id for row in unit_rows(run, "ldlc")]


def test_failures_are_rows(run, tmp_path):
    export_tables(run, tmp_path / "out", "csv")
    failed = read_csv(tmp_path / "out" / "units-ldlc.csv")[-1]
    assert (failed["status"], failed["unit.error"], failed["s"], failed["check.c.passed"]) == (
        "failed",
        "DataError",
        "",
        "",
    )
    assert as_stored(failed["unit.message"]) == NASTY.encode("utf-8", "backslashreplace").decode()
    (other,) = read_csv(tmp_path / "out" / "units-lsb.csv")
    assert (other["status"], other["unit.message"]) == ("failed", "no")


def test_long_tables_have_a_row_for_each_number_with_its_unit(run, tmp_path):
    export_tables(run, tmp_path / "out", "csv")
    scalars = read_csv(tmp_path / "out" / "scalars.csv")
    assert len(scalars) == 2 * (len(VALUES) + 1)
    for row, value in zip([row for row in scalars if row["name"] == "s"], [*VALUES, 3.5], strict=True):
        assert same(float(row["value"]), value)
        assert (row["unit"], row["description"], row["group"]) == ("1/px", "a slope, steep", "g")
    assert {row["probe"] for row in scalars} == {"ldlc", "spectrum"}
    checks = read_csv(tmp_path / "out" / "checks.csv")
    assert [(row["name"], row["passed"], row["bound"]) for row in checks] == [("c", "true", "1.0")] * (len(VALUES) + 1)


def test_a_dictionary_says_what_every_column_is(run, tmp_path):
    written = export_tables(run, tmp_path / "out", "csv")
    said = {(row["table"], row["column"]): row for row in read_csv(tmp_path / "out" / "columns.csv")}
    heads = {file.path.stem: (tmp_path / "out" / file.path.name).read_text().splitlines()[0] for file in written[:-1]}
    assert set(said) == {(name, column.strip('"')) for name, head in heads.items() for column in head.split(",")}
    assert [file.columns for file in written[:-1]] == [head.count(",") + 1 for head in heads.values()]
    row = said["units-ldlc", "s"]
    assert (row["unit"], row["description"], row["group"], row["kind"]) == ("1/px", "a slope, steep", "g", "number")
    assert all(row["description"] for row in said.values())


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\n=1", "'=1", "\uff1d1"])
def test_no_text_begins_like_a_formula_and_each_comes_back(start):
    rows = [(start, -1.5), (f"x{start}", -math.inf), ("", None)]
    text = as_csv([Column("a", "text"), Column("b", "number")], rows).decode()
    _, (first, minus), (second, _), (third, absent) = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert first == f"'{start}"
    assert (second, third) == (f"x{start}", "")
    assert (minus, absent) == ("-1.5", "")  # numbers are ours, and stay numbers


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.none() | st.floats()), min_size=1))
def test_csv_is_rfc_4180_and_reversible(rows):
    raw = as_csv([Column("a", "text"), Column("b", "number")], rows)
    assert raw.endswith(b"\r\n")
    found = list(csv.reader(io.StringIO(raw.decode("utf-8"), newline=""), strict=True))
    assert found[0] == ["a", "b"]
    for (text, number), (a, b) in zip(rows, found[1:], strict=True):
        assert as_stored(a) == text
        assert a[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n")
        assert b == "" if number is None else same(float(b), number)


def test_parquet_gives_the_same_values_with_units_in_the_metadata(run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    export_tables(run, tmp_path / "out", "parquet")
    table = parquet.read_table(tmp_path / "out" / "units-ldlc.parquet")
    for found, stored in zip(table["s"].to_pylist(), [*VALUES, None], strict=True):
        assert found is None if stored is None else same(found, stored)
    assert table["s.n"].to_pylist() == [None, *range(1, len(VALUES)), None]
    assert table["check.c.passed"].to_pylist() == [True] * len(VALUES) + [None]
    assert table["unit.message"].to_pylist()[3] == "+1"  # no spreadsheet reads this
    metadata = table.schema.field("s").metadata
    assert (metadata[b"unit"], metadata[b"description"], metadata[b"group"]) == (b"1/px", b"a slope, steep", b"g")
    assert table.schema.metadata[b"plan_digest"] == b"digest"


def test_tables_open_in_pandas(run, tmp_path):
    pandas = pytest.importorskip("pandas")
    export_tables(run, tmp_path / "out", "csv")
    frame = pandas.read_csv(tmp_path / "out" / "units-ldlc.csv")
    np.testing.assert_array_equal(frame["s"].to_numpy(), [*VALUES, np.nan])
    export_tables(run, tmp_path / "out", "parquet")
    np.testing.assert_array_equal(pandas.read_parquet(tmp_path / "out" / "units-ldlc.parquet")["s"], [*VALUES, np.nan])


def test_the_document_holds_everything_but_arrays_and_pictures(run):
    file = io.BytesIO()
    export_document(run, file)
    assert file.getvalue().isascii()
    document = json.loads(file.getvalue())
    assert (document["format"], document["plan_digest"], document["missing"]) == ("equivengine-export", "digest", [])
    assert [entry["unit_id"] for entry in document["units"]] == [row.unit_id for row in unit_rows(run)]
    for entry, value in zip(document["units"], VALUES, strict=False):
        (record,) = (record for record in run.units() if record.unit_id == entry["unit_id"])
        assert same(float(entry["summary"]["s"]["value"]), value)
        assert entry["summary"]["s"]["unit"] == "1/px"
        assert entry["summary"]["s"]["interval"] == (None if record.summary["s"].interval is None else [0.1, 0.7])
        assert entry["checks"]["c"]["passed"] is True
        assert (entry["arrays"], entry["pictures"]) == (["x"], ["p"])
        assert entry["unit"]["params"] == json.loads(record.unit.params)
        refs = document["references"][entry["unit"].pop("references")]
        back = Unit.from_json({**entry["unit"], "params": record.unit.params, "references": refs})
        assert back == record.unit
    failed = next(entry for entry in document["units"] if entry.get("error") == "DataError")
    assert failed["message"] == NASTY
    assert failed["unit"]["samples"][0]["id"] == NASTY


def test_one_probe_can_be_chosen_and_an_unknown_one_is_named(run, tmp_path):
    assert {row.unit.probe for row in unit_rows(run, "spectrum")} == {"spectrum"}
    written = export_tables(run, tmp_path / "out", "csv", probe="spectrum")
    assert written[0].rows == 1
    with pytest.raises(StoreError, match="no results of probe 'match'"):
        export_tables(run, tmp_path / "none", "csv", probe="match")
    assert not (tmp_path / "none").exists()


def test_probes_of_like_names_get_files_of_their_own(tmp_path):
    units = [unit(0, "a b"), unit(0, "a:b"), unit(0, "A_b")]
    directory = RunDirectory.create_or_open(tmp_path / "run", {"units": [u.to_json() for u in units]}, "digest")
    for one in units:
        directory.publish(one, result(1), {})
    with open_run(directory.path) as run:
        assert [table.name for table in wide_tables(unit_rows(run))] == ["units-a_b", "units-a_b-2", "units-A_b-3"]


def test_nothing_is_overwritten_unless_asked_for(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "scalars.csv").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        export_tables(run, out, "csv")
    assert [path.name for path in out.iterdir()] == ["scalars.csv"]
    assert (out / "scalars.csv").read_text() == "mine"
    export_tables(run, out, "csv", overwrite=True)
    assert read_csv(out / "scalars.csv")
    target = tmp_path / "all.json"
    export_document(run, target)
    with pytest.raises(UsageError, match="is there already"):
        export_document(run, target)
    with pytest.raises(UsageError, match="is a directory"):
        export_document(run, out, overwrite=True)


@pytest.mark.parametrize("before", [None, b"before"], ids=["nothing", "a file"])
def test_a_write_that_fails_leaves_what_was_there(run, tmp_path, monkeypatch, before):
    target = tmp_path / "table.csv"
    if before is not None:
        target.write_bytes(before)

    def full(path):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(atomic, "_sync_file", full)
    with pytest.raises(StoreError, match="no room"):
        export_units(run, target, "csv", long=True, overwrite=True)
    assert [path.name for path in tmp_path.iterdir() if path.name != "run"] == ["table.csv"] * (before is not None)
    assert before is None or target.read_bytes() == before


def test_without_pyarrow_there_is_one_error_and_nothing_is_written(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EngineError, match=r'pip install "equivengine\[parquet\]"'):
        export_tables(run, tmp_path / "out", "parquet")
    assert not (tmp_path / "out").exists()
