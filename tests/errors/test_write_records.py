"""What is written of errors that tests provoke."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import error_records
import error_sites
import pytest
import write_records


@pytest.fixture
def records(tmp_path, monkeypatch):
    """A copy of the records of errors that are there, in a folder of its own."""
    places = error_sites.sites().keys() - error_records.elsewhere().keys()
    known = {site: record for site, record in error_records.records().items() if site in places}
    monkeypatch.setattr(error_records, "FOLDER", tmp_path / "records")
    error_records.FOLDER.mkdir()
    error_records.write(known)
    error_records.records.cache_clear()
    yield error_records.records
    error_records.records.cache_clear()


@pytest.fixture
def tests_that_see(monkeypatch):
    """Stand in for the tests that `write_records` starts: what they see, and what happens meanwhile."""

    def stand_in(*seen: error_records.Record, meanwhile=lambda: None) -> None:
        def run(command: list[object], cwd: Path) -> None:
            meanwhile()
            log = Path(str(command[command.index("--record-errors") + 1]))
            lines = [list(dataclasses.astuple(record)) for record in seen]
            lines += [["", test, "", "", ""] for test in {record.test for record in seen}]
            log.write_text("".join(json.dumps(line) + "\n" for line in lines))

        monkeypatch.setattr(write_records.subprocess, "run", run)

    return stand_in


def _other_words(record: error_records.Record) -> error_records.Record:
    return dataclasses.replace(record, text=record.text.replace("\n", ", in other words\n", 1))


def test_records_that_another_call_writes_meanwhile_are_kept(records, tests_that_see):
    known = records()
    alone = [r for r in known.values() if "\n" in r.text and [s.test for s in known.values()].count(r.test) == 1]
    mine, theirs = _other_words(alone[0]), _other_words(alone[1])
    assert mine != alone[0]

    def meanwhile():
        error_records.write({**known, theirs.site: theirs})

    tests_that_see(mine, meanwhile=meanwhile)
    assert write_records.main([mine.test]) == 0
    records.cache_clear()
    assert records() == {**known, mine.site: mine, theirs.site: theirs}


def test_what_still_holds_stays_as_it_is(records, tests_that_see):
    known = dict(records())
    record = next(r for r in known.values() if any(c.isdigit() for c in r.text))
    measured = dataclasses.replace(record, text="".join("7" if c.isdigit() else c for c in record.text))
    tests_that_see(measured)
    write_records.main([record.test])
    records.cache_clear()
    assert records() == known
