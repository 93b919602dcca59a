"""The serial executor: in order, in this process, and Ctrl-C passes through."""

from __future__ import annotations

import pytest

from equivengine_plugins.executors.serial import Serial, equivengine_register_executors


def test_each_batch_is_run_and_reported_before_the_next():
    seen = []
    Serial().map(
        lambda unit: seen.append(("run", unit)) or unit * 10,
        iter([1, 2, 3]),
        on_done=lambda unit, outcome: seen.append(("done", unit, outcome)),
    )
    assert seen == [("run", 1), ("done", 1, 10), ("run", 2), ("done", 2, 20), ("run", 3), ("done", 3, 30)]


def test_ctrl_c_stops_at_once():
    def interrupted(unit):
        raise KeyboardInterrupt

    done = []
    with pytest.raises(KeyboardInterrupt):
        Serial().map(interrupted, [1, 2], on_done=lambda *outcome: done.append(outcome))
    assert done == []


def test_it_is_registered_under_its_name():
    assert [executor.name for executor in equivengine_register_executors()] == ["serial"]
