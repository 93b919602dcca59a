"""Estimates: what is measured is scaled to the plan, and what cannot fit is refused before or soon after the start."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from equivengine.errors import StoreError
from equivengine.runtime import estimate as estimates
from equivengine.runtime.engine import execute, plan_of, resume
from equivengine.runtime.estimate import Estimate, estimate, kinds_of
from equivengine.runtime.ledger import Ledger
from equivengine.runtime.room import Room, check_room, size_text
from equivengine.store import RunDirectory, open_run

TWELVE = "noise:12?size=8&mode=L"


@pytest.fixture
def disk_with(monkeypatch):
    """A disk with so many free bytes."""

    def have(free):
        usage = SimpleNamespace(total=free, used=0, free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)

    return have


@pytest.fixture
def planned(registry, make_config):
    return lambda *arguments, **options: plan_of(make_config(*arguments, **options), registry)


def test_kinds_are_counted_without_making_a_unit(planned, monkeypatch):
    plan, _ = planned(models=["toy", "toy?seed=1"], images=[TWELVE, "noise:3?size=8&mode=L&seed=1"])
    monkeypatch.setattr(type(plan.units), "_unit", None)
    kinds = kinds_of(plan)
    assert [(kind.common.model, kind.units, dict(kind.images)) for kind in kinds] == [
        (model, 15, {TWELVE: 12, "noise:3?size=8&mode=L&seed=1": 3}) for model in ("toy", "toy?seed=1")
    ]


def test_the_first_middle_and_last_batch_of_each_kind_are_run_and_nothing_is_left(planned, tmp_path, monkeypatch):
    plan, bench = planned("together", images=[TWELVE], models=["toy", "toy?seed=1"])
    run = []
    real = estimates.run_batch
    monkeypatch.setattr(estimates, "run_batch", lambda context, batch: run.append(batch) or real(context, batch))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(tmp_path.iterdir())
    found = estimate(plan, bench)
    assert run == list(plan.batches())  # three batches of four for each model
    assert set(tmp_path.iterdir()) == before
    for kind in found.kinds:
        assert kind.batches == 3
        assert 0 < kind.seconds[0] <= kind.seconds[1] <= kind.seconds[2]
        assert kind.bytes > 0
    assert found.measured_on["threads"] >= 1


def test_the_estimate_of_bytes_is_what_the_run_takes(planned, make_config, registry):
    config = make_config(images=[TWELVE])
    plan, bench = plan_of(config, registry)
    found = estimate(plan, bench)
    execute(config, registry=registry)
    stored = sum(512 * path.lstat().st_blocks for path in RunDirectory(config_path(config)).path.rglob("*.h5"))
    assert found.bytes == pytest.approx(stored, rel=0.25)  # of run.h5 a part does not grow with the units


def config_path(config):
    from pathlib import Path

    return Path(config.out)


def test_a_kind_that_fails_has_no_estimate_and_says_why(planned):
    plan, bench = planned(settings={"behaviour": "raises"})
    found = estimate(plan, bench)
    (kind,) = found.kinds
    assert kind.seconds is None
    assert "no luck" in kind.problem
    assert found.seconds is None
    assert found.bytes is None


def test_totals_are_sums_over_units_and_what_comes_once(planned):
    plan, _ = planned(images=[TWELVE], models=["toy", "toy?seed=1"])
    first, second = kinds_of(plan)
    first.seconds, first.bytes = (1.0, 2.0, 3.0), 100.0
    second.seconds, second.bytes = (10.0, 10.0, 10.0), 1000.0
    found = Estimate([first, second], {"toy": 5.0}, 0.5, 0.25, {})
    assert found.seconds == tuple(12 * a + 120 + 5 + 24 * 0.5 for a in (1, 2, 3))
    assert found.bytes == 1.25 * 12 * 1100


def test_one_batch_alone_gives_half_and_twice(planned):
    plan, bench = planned(images=["noise:1?size=8&mode=L"])
    (kind,) = estimate(plan, bench).kinds
    low, middle, high = kind.seconds
    assert (low, high) == (middle / 2, middle * 2)


def test_what_does_not_fit_is_refused_by_name(tmp_path, disk_with):
    disk_with(1000)
    check_room(1000, tmp_path / "not" / "there", "the run", "pass --out")
    with pytest.raises(StoreError, match="does not fit on the disk of") as caught:
        check_room(1001, tmp_path / "not" / "there", "the run", "pass --out")
    assert (caught.value.expected, caught.value.got) == ("1.0 KB for the run", "1.0 KB free")


def test_a_run_that_cannot_fit_stops_after_its_first_unit_and_goes_on_when_there_is_room(
    registry, make_config, disk_with, monkeypatch
):
    config = make_config(images=[TWELVE])
    with monkeypatch.context():
        disk_with(20_000)
        with pytest.raises(StoreError, match="does not fit") as caught:
            execute(config, registry=registry)
    assert "11 units left" in caught.value.expected
    assert "equivengine resume" in caught.value.hint
    assert len(RunDirectory(config_path(config)).published()) == 1
    disk_with(10**9)
    assert resume(config.out, registry=registry).outcomes == {"published": 11, "skipped": 1}
    with open_run(config.out) as run:
        assert len(run.published) == 12


def test_room_is_asked_for_the_units_that_are_left_alone(registry, make_config, disk_with):
    config = make_config(images=[TWELVE])
    plan, _ = plan_of(config, registry)
    execute(config, registry=registry)
    ledger = Ledger(plan, list(plan.units.ids)[:10])
    disk_with(1)
    with pytest.raises(StoreError) as caught:
        Room(plan, config_path(config), ledger.left_in).stored(plan.units[11])
    assert "the 1 unit left" in caught.value.expected


def test_a_disk_that_does_not_say_what_is_free_stops_nothing(registry, make_config, monkeypatch):
    def silent(place):
        raise OSError("not here")

    monkeypatch.setattr(shutil, "disk_usage", silent)
    assert execute(make_config(images=[TWELVE]), registry=registry).outcomes["published"] == 12


NORM = {"scalar": "measure/norm", "tolerance": 0.5}


def shard_bytes(directory):
    """What a shard takes on the disk."""
    return 512 * next((directory / "shards").rglob("*.h5")).lstat().st_blocks


def test_units_that_a_stop_rule_may_leave_out_need_no_room_and_are_warned_of(
    registry, make_config, disk_with, tmp_path
):
    config = make_config(images=[TWELVE], stop=NORM)
    size = shard_bytes(execute(make_config(images=[TWELVE], out=str(tmp_path / "plain")), registry=registry).directory)
    disk_with(1.35 * 8 * size)  # for the eight before the first look, not for all twelve
    said = []
    report = execute(config, registry=registry, on_caution=said.append)
    assert report.outcomes["published"] == 8
    (text,) = said
    assert text.startswith("the plan may not fit on the disk of")
    assert "up to 11 units left" in text
    assert report.cautions == said


def test_units_before_the_first_look_of_a_stop_rule_must_fit(registry, make_config, disk_with):
    config = make_config(images=[TWELVE], stop=NORM)
    disk_with(20_000)
    with pytest.raises(StoreError, match="does not fit") as caught:
        execute(config, registry=registry)
    assert "the 7 units left" in caught.value.expected
    disk_with(10**9)
    assert resume(config.out, registry=registry).outcomes == {"published": 7, "skipped": 1}


def test_what_a_look_makes_necessary_is_held_against_the_disk_before_it_begins(
    registry, make_config, disk_with, monkeypatch
):
    config = make_config(images=[TWELVE], stop={**NORM, "tolerance": 0.001})  # takes all twelve
    done = []

    def fill_up(unit, outcome):
        done.append(unit)
        if len(done) == 8:
            disk_with(1000)

    with pytest.raises(StoreError, match="does not fit") as caught:
        execute(config, registry=registry, on_done=fill_up)
    assert "the 4 units left" in caught.value.expected
    assert len(done) == 8


def test_what_is_needed_in_any_case_is_estimated_beside_the_whole(planned):
    several = [TWELVE, "noise:3?size=8&mode=L&seed=1"]
    probes = [{"name": "measure"}, {"name": "difference"}]
    plan, _ = planned(images=several, models=["toy", "toy?seed=1"], stop=NORM, probes=probes)
    kinds = kinds_of(plan)
    assert [(kind.common.probe, kind.units, kind.least) for kind in kinds] == 2 * [
        ("measure", 15, 8 + 3),
        ("difference", 15, 15),
    ]
    for kind in kinds:
        kind.seconds, kind.bytes = (1.0, 2.0, 4.0), 100.0
    found = Estimate(kinds, {"toy": 5.0}, 0.5, 0.25, {})
    assert found.least_seconds == tuple(52 * a + 5 + 26 for a in (1, 2, 4))
    assert found.seconds == tuple(60 * a + 5 + 30 for a in (1, 2, 4))
    assert (found.least_bytes, found.bytes) == (1.25 * 5200, 1.25 * 6000)


def test_sizes_have_units():
    assert [size_text(size) for size in (12, 1234, 5.1e9, 2.5e12)] == ["12 bytes", "1.2 KB", "5.1 GB", "2.5 TB"]


# -- the ledger -------------------------------------------------------------------------------------------------------


def test_a_ledger_crosses_off_each_unit_once(planned):
    plan, _ = planned("together", images=["noise:7?size=8&mode=L"])
    ids = list(plan.units.ids)
    ledger = Ledger(plan, [ids[0], "ab" * 32, "no id"])
    assert (ledger.done, ledger.left) == (1, 6)
    todo = ledger.batches()
    assert list(todo) == list(plan.batches())
    assert [len(batch) for batch in ledger.missing()] == [3, 3]
    for unit_id in (*ids[1:4], ids[1], ids[0], "cd" * 32):
        ledger.cross_off(unit_id)
    assert ledger.left == 3
    assert list(ledger.batches()) == list(plan.batches())[1:]
    assert list(todo) == list(plan.batches())  # as it was then
    assert not ledger.cross_off(ids[1])
    assert ledger.cross_off(ids[6])
