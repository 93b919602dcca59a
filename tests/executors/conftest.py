from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import deeds
import pytest


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Work for batches of `deeds`; processes that are started find that module."""
    before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *before]))
    folder = tmp_path / "results"
    folder.mkdir()

    def make(batches, **fields):
        found = tuple((unit.unit_id, unit.probe) for batch in batches for unit in batch)
        return deeds.Deeds(str(folder), found, **fields)

    return make


@pytest.fixture
def carry_out(work):
    """Run batches of deeds on an executor; what became of each, in the order in which they were reported."""

    def run(executor, *names, batches=None, close=True):
        batches = deeds.batches(*names) if batches is None else batches
        made = work(batches)
        found = []
        executor.map(made, batches, on_done=lambda batch, outcomes: found.append((batch, outcomes)))
        if close:
            executor.close()
        return found, deeds.log(made.directory)

    return run


@pytest.fixture
def interrupt(tmp_path):
    """Press Ctrl-C once so many batches have begun."""
    # A shell has its background ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press(count):
        def wait_and_press():
            while len(deeds.log(tmp_path / "results")) < count:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=wait_and_press, daemon=True).start()

    yield press
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def mark(monkeypatch):
    """Mark the processes that a test starts; returns the ids of those that are alive, this one aside."""
    name = f"EQUIVENGINE_TEST_{os.urandom(8).hex()}"
    monkeypatch.setenv(name, "1")

    def alive():
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                marked = f"{name}=1".encode() in (place / "environ").read_bytes()
                ended = (place / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            if marked and not ended and int(place.name) != os.getpid():
                found.append(int(place.name))
        return found

    return alive
