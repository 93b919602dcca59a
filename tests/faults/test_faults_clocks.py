"""Clocks that are set while runs are under way: no logic of the store goes by the time of day."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
import pytest
from fault_cases import carry_out, config

from equivengine import Picture, open_run
from equivengine.store import RunDirectory, atomic, inspect_run, set_aside

DAY = 24 * 3600


@pytest.mark.parametrize("step", [-400 * DAY, 400 * DAY])
def test_a_clock_that_steps_between_units_changes_nothing(out, undisturbed, recovered, monkeypatch, step):
    from equivengine.runtime import engine

    now = time.time

    def jump(unit, outcome):
        monkeypatch.setattr(time, "time", lambda: now() + step)

    engine.execute(config(out), on_done=jump)
    for path in sorted(out.rglob("*"))[::2]:
        os.utime(path, (now() + step, now() + step))
    assert not inspect_run(out).findings
    assert recovered() == undisturbed()


def test_a_living_writers_file_stays_though_it_looks_old(out):
    carry_out(config(out, count=1))
    mine = atomic.temporary_beside(out / "plan.json")
    mine.write_bytes(b"")
    os.utime(mine, (1, 1))
    assert atomic.sweep(out) == []


def test_a_strangers_file_is_swept_by_the_clock_of_its_disk_not_by_ours(out, monkeypatch):
    carry_out(config(out, count=1))
    fresh = out / "tmp.elsewhere.1.00"
    fresh.write_bytes(b"")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 2 * DAY)
    assert atomic.sweep(out) == []
    os.utime(fresh, (now() - 2 * DAY, now() - 2 * DAY))
    assert atomic.sweep(out) == [fresh]


def test_a_file_that_is_swept_under_its_writer_is_written_again(tmp_path, monkeypatch):
    fsync, swept = os.fsync, []

    def sweep(descriptor):
        fsync(descriptor)
        if not swept:
            swept.extend(tmp_path.glob("tmp.*"))
            swept[0].unlink()

    monkeypatch.setattr(os, "fsync", sweep)
    assert atomic.publish_text(tmp_path / "file", "text", overwrite=False)
    assert swept
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "text"


def test_png_files_of_a_damaged_shard_go_with_it_however_new_they_look(out, monkeypatch):
    """Those that look newer than their shard are not looked into, and a clock may have been set back meanwhile."""
    carry_out(config(out, count=1))
    with open_run(out) as run:
        (unit, result), plan, digest = *run.results("measure"), run.plan, run.plan_digest
    directory = RunDirectory.create_or_open(out.with_name("drawn"), plan, digest)

    def publish(level):
        picture = Picture(np.full((3, 4), level, np.uint8), "grey")
        assert directory.publish(unit, replace(result, pictures={"grey": picture}), {})
        return picture.png()

    publish(10)
    directory.consolidate()
    (png,) = directory.path.rglob("*.png")
    os.utime(png, (time.time() + DAY, time.time() + DAY))
    next(directory.path.glob("shards/*/*.h5")).write_bytes(b"")
    set_aside(inspect_run(directory.path))
    with monkeypatch.context() as patched:  # the process died before it wrote the picture, say
        patched.setattr("equivengine.store.png.write_unit", lambda *arguments: [])
        wanted = publish(20)
    directory.consolidate()
    assert png.read_bytes() == wanted
