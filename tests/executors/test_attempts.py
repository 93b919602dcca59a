"""Which batch runs next: all run, each dies three times at most, and its last chance comes with nothing beside it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equivengine_plugins.executors.attempts import Attempts
from equivengine_plugins.executors.unit_process import Death

KILLED = Death("was killed by SIGKILL", "Signal")


@settings(deadline=None)
@given(
    deadly=st.lists(st.integers(0, 5), max_size=8),
    slots=st.integers(1, 4),
    turns=st.randoms(use_true_random=False),
)
def test_all_batches_end_and_only_those_that_died_three_times_fail(deadly, slots, turns):
    """``deadly[i]``: how often batch i kills its process before it would finish."""
    left = {(str(place), str(place)): count for place, count in enumerate(deadly)}
    attempts = Attempts(list(left))
    running, finished, failed, deaths = [], [], {}, dict.fromkeys(left, 0)
    while not attempts.over:
        while len(running) < slots and (batch := attempts.next()) is not None:
            running.append(batch)
            assert len(running) == 1 or max(deaths[one] for one in running) < 2, "a last chance is given alone"
        assert running, "nothing runs, and nothing is over"
        batch = running.pop(turns.randrange(len(running)))
        if left[batch]:
            left[batch] -= 1
            deaths[batch] += 1
            why = attempts.died(batch, KILLED)
            assert (why is not None) == (deaths[batch] == 3)
            if why is not None:
                failed[batch] = why
        else:
            attempts.finished()
            finished.append(batch)
    assert attempts.next() is None
    assert sorted(finished) == sorted(batch for batch, count in zip(deaths, deadly, strict=True) if count < 3)
    assert sorted(failed) == sorted(batch for batch, count in zip(deaths, deadly, strict=True) if count >= 3)


def test_batches_come_in_order_and_those_that_died_after_all_others():
    attempts = Attempts(["a", "b", "c"])
    assert attempts.next() == "a"
    attempts.died("a", KILLED)
    assert [attempts.next(), attempts.next(), attempts.next(), attempts.next()] == ["b", "c", "a", None]


@pytest.mark.parametrize(
    ("batch", "says"),
    [(("a",), "the process of this unit died 3 times"), (("a", "b", "c"), "this unit and 2 more of its batch died")],
)
def test_the_reason_names_every_cause_once(batch, says):
    attempts = Attempts([batch])
    for death in (KILLED, KILLED):
        assert attempts.next() == batch
        assert attempts.died(batch, death) is None
    attempts.next()
    why = attempts.died(batch, Death("exited with code 3", "Exit"))
    assert says in why
    assert why.endswith("it was killed by SIGKILL, then exited with code 3")
    assert attempts.over
