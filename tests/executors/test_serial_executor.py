"""The serial executor: in order, in this process, published before it is reported, and Ctrl-C passes through."""

from __future__ import annotations

import functools
import threading

import deeds
import pytest

from equivengine.errors import StoreError
from equivengine_plugins.executors import serial
from equivengine_plugins.executors.serial import Serial, equivengine_register_executors


@pytest.fixture
def noted(tmp_path):
    """Make a `Noted` for this test's folder."""
    return functools.partial(Noted, str(tmp_path))


class Noted:
    """Work that notes what is computed, published and reported, by numbers of batches."""

    def __init__(self, directory, interrupted=None, full=None):
        self.directory = directory
        self.seen = []
        self.interrupted = interrupted
        self.full = full
        self.threads = set()

    def compute(self, units):
        batch = number(units)
        if batch == self.interrupted:
            raise KeyboardInterrupt
        self.seen.append(("computed", batch))

        def publish():
            if batch == self.full:
                raise StoreError("no room")
            self.threads.add(threading.current_thread())
            self.seen.append(("published", batch))
            return batch * 10

        return publish

    def carried(self, batches=(1, 2, 3)):
        def on_done(units, found):
            self.seen.append(("done", number(units), found))

        Serial().map(self, iter([(deeds.unit("wait", batch),) for batch in batches]), on_done=on_done)


def number(units):
    return units[0].samples[0].index


def test_each_batch_is_published_then_reported_in_order(noted):
    work = noted()
    work.carried()
    for kind in ("computed", "published", "done"):
        assert [entry[1] for entry in work.seen if entry[0] == kind] == [1, 2, 3]
    for batch in (1, 2, 3):
        places = [work.seen.index(entry) for entry in work.seen if entry[1] == batch]
        assert [work.seen[place][0] for place in places] == ["computed", "published", "done"]
        assert ("done", batch, batch * 10) in work.seen
    # No more than one waits: a batch is reported before the next but one is begun.
    assert work.seen.index(("done", 1, 10)) < work.seen.index(("computed", 3))
    assert threading.main_thread() not in work.threads


def test_a_batch_that_took_long_is_reported_before_the_next(noted, monkeypatch):
    monkeypatch.setattr(serial, "BESIDE_SECONDS", -1.0)
    work = noted()
    work.carried([1, 2])
    assert [entry[:2] for entry in work.seen] == [
        *(("computed", 1), ("published", 1), ("done", 1)),
        *(("computed", 2), ("published", 2), ("done", 2)),
    ]


def test_ctrl_c_stops_at_once_and_what_was_computed_is_published_and_reported(noted):
    work = noted(interrupted=2)
    with pytest.raises(KeyboardInterrupt):
        work.carried()
    assert work.seen == [("computed", 1), ("published", 1), ("done", 1, 10)]


def test_what_cannot_be_published_stops_the_run_and_is_not_reported(noted):
    work = noted(full=1)
    with pytest.raises(StoreError, match="no room"):
        work.carried()
    assert "done" not in {entry[0] for entry in work.seen}
    assert ("computed", 3) not in work.seen


def test_it_is_registered_under_its_name():
    assert [executor.name for executor in equivengine_register_executors()] == ["serial"]
