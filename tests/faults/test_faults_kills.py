"""SIGKILL at random moments: nothing published is lost, nothing is unreadable, and resuming gives the same content."""

from __future__ import annotations

import random
import time

import pytest
from fault_cases import carry_out, config, consolidate_for_ever, kill_after, publish_for_ever, wait_for

from equivengine import open_run
from equivengine.store import RunDirectory, inspect_run


def promised(log):
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize(("probe", "seed"), [("measure", 0), ("together", 1)])
def test_a_run_that_is_killed_again_and_again_ends_like_an_undisturbed_one(
    start, out, tmp_path, undisturbed, recovered, probe, seed
):
    """Kills fall on planning, units, publishing, inspection and consolidation, wherever the time has come."""
    rng = random.Random(seed)
    log = tmp_path / "log"
    for name in ("first", "timed"):  # the first one also waits for the server that children are forked from
        begun = time.monotonic()
        start(carry_out, config(tmp_path / name, probe=probe)).join(60)
    whole = time.monotonic() - begun
    kills = 0
    for _ in range(12):
        kills += kill_after(start(carry_out, config(out, probe=probe), log, True), rng.uniform(0.1, 0.9) * whole)
        if (out / "plan.json").exists():
            found = inspect_run(out)
            assert not found.findings
            assert set(promised(log)) <= set(RunDirectory.open(out).published())
    assert kills
    assert recovered(probe=probe) == undisturbed(probe=probe)


def test_kills_while_results_are_published_lose_none_that_was_promised(start, out, tmp_path):
    carry_out(config(out, count=3, seconds=0))
    log = tmp_path / "log"
    rng = random.Random(2)
    for _ in range(4):
        before = len(promised(log))
        process = start(publish_for_ever, str(out), log)
        wait_for(lambda: len(promised(log)) > before, process)  # noqa: B023  called within the loop
        assert kill_after(process, rng.uniform(0, 0.15))
    for line in promised(log):
        path, unit_id = line.rsplit(" ", 1)
        with open_run(path) as run:
            assert unit_id in run.published
    for path in {line.rsplit(" ", 1)[0] for line in promised(log)}:
        assert not inspect_run(path).findings


def test_kills_in_consolidation_leave_the_former_file_or_the_next(start, out, undisturbed, recovered):
    carry_out(config(out))
    rng = random.Random(3)
    for _ in range(5):
        process = start(consolidate_for_ever, str(out))
        wait_for(lambda: list(out.glob("tmp.*")), process)
        assert kill_after(process, rng.uniform(0, 0.15))
        assert not inspect_run(out).findings
        assert not inspect_run(out / "run.h5").findings
    assert recovered() == undisturbed()
