"""Disks that are full, read-only or gone: one clear error, nothing published is lost, and resuming finishes the run."""

from __future__ import annotations

import os
import subprocess

import pytest
from fault_cases import carry_out, config

from equivengine.errors import StoreError
from equivengine.store import RunDirectory, inspect_run


@pytest.fixture
def out(small_disk):
    return small_disk("4m") / "run"


def fill(place, leave):
    """A file that leaves so many bytes of the disk free."""
    free = os.statvfs(place)
    size = free.f_bavail * free.f_frsize - leave
    with open(place / "filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return place / "filler"


def test_a_full_disk_stops_a_run_and_resuming_finishes_it(out, undisturbed, recovered, monkeypatch):
    monkeypatch.setattr("equivengine.runtime.room.check_room", lambda *arguments: None)  # others fill it up later
    filler = fill(out.parent, 90_000)  # room for some shards
    with pytest.raises(StoreError, match="no room") as caught:
        carry_out(config(out))
    assert "resume" in caught.value.hint
    before = RunDirectory.open(out).published()
    assert 1 <= len(before) < 8
    assert not inspect_run(out).findings
    assert not list(out.rglob("tmp.*"))
    filler.unlink()
    assert recovered() == undisturbed()


@pytest.mark.parametrize("share", [0, 0.1, 0.8])
def test_a_disk_that_is_full_in_consolidation_keeps_the_former_file(out, undisturbed, recovered, share):
    carry_out(config(out))
    former = (out / "run.h5").read_bytes()
    filler = fill(out.parent, int(share * len(former)))
    with pytest.raises(StoreError, match="no room"):
        RunDirectory.open(out).consolidate()
    assert (out / "run.h5").read_bytes() == former
    assert not list(out.rglob("tmp.*"))
    assert not inspect_run(out).findings
    filler.unlink()
    assert recovered() == undisturbed()


def test_a_disk_that_is_full_from_the_start(out, recovered, undisturbed):
    filler = fill(out.parent, 0)
    with pytest.raises(StoreError, match="no room"):
        carry_out(config(out))
    filler.unlink()
    assert recovered() == undisturbed()


def test_a_disk_that_becomes_read_only_during_a_run(out, undisturbed, recovered, monkeypatch):
    publish, published = RunDirectory.publish, []

    def remount(mode):
        subprocess.run(["mount", "-o", f"remount,{mode}", out.parent], check=True)

    def third_fails(self, *arguments):
        if len(published) == 2:
            remount("ro")
        published.append(publish(self, *arguments))
        return published[-1]

    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "publish", third_fails)
        with pytest.raises(StoreError, match="cannot write") as caught:
            carry_out(config(out))
    assert "Read-only file system" in caught.value.got
    found = inspect_run(out)  # reading needs no writing
    assert (found.findings, len(found.missing)) == ([], 6)
    with pytest.raises(StoreError, match="cannot write"):
        carry_out(config(out), resumed=True)
    remount("rw")
    assert recovered() == undisturbed()


def test_a_directory_that_vanishes_during_a_run_is_not_made_again_without_its_plan(out, recovered, undisturbed):
    elsewhere, done = out.with_name("elsewhere"), []
    from equivengine.runtime import engine

    def vanish(unit, outcome):
        done.append(unit)
        if len(done) == 3:
            out.rename(elsewhere)

    with pytest.raises(StoreError, match="it is gone") as caught:
        engine.execute(config(out), on_done=vanish)
    assert "resume" in caught.value.hint
    assert not out.exists()
    elsewhere.rename(out)
    assert len(RunDirectory.open(out).published()) == 3
    assert recovered() == undisturbed()


def test_a_folder_of_shards_that_vanishes_during_a_run(out, recovered, undisturbed):
    import shutil

    from equivengine.runtime import engine

    with pytest.raises(StoreError, match="it is gone"):
        engine.execute(config(out), on_done=lambda unit, outcome: shutil.rmtree(out / "shards"))
    assert not (out / "shards").exists()
    assert recovered() == undisturbed()
