"""The order in which a plan is carried out: all at once, or wave by wave where results decide what is needed."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from equivengine.contracts.unit import Batch
from equivengine.errors import UsageError
from equivengine.runtime.ledger import Ledger
from equivengine.runtime.plan import Plan
from equivengine.store import Run, open_run
from equivengine.store.enough import Ending, Enough


class Waves:
    """Batches that are still to be done, up to the next look of each stop rule (`equivengine.store.enough`).

    An executor is handed one wave after the other, so that no unit starts that a look might spare. What is done is then
    the same for any executor, whatever finishes first. Image sets end each for itself, so that the order of models
    changes nothing; one model is finished before the next one begins, and is loaded once.

    Args:
        plan: The plan.
        directory: Where it is carried out.
        ledger: What is still to be done.
        every_model: Put the same look of every model into one wave: for executors that start processes for each wave,
            which load all models again in any case.

    Attributes:
        unneeded: How many units need not be done, as far as is known; those done before a look was reached not counted.
    """

    def __init__(self, plan: Plan, directory: Path, ledger: Ledger, *, every_model: bool = False) -> None:
        self._plan, self._directory, self._ledger = plan, directory, ledger
        self._enough = Enough(plan.stop_rules, plan.units, plan.batches()) if plan.stop_rules else None
        everything = np.ones(len(plan.units), dtype=bool)
        self._turns = [everything] if self._enough is None or every_model else _by_model(plan)
        self._needed, self._possible = everything, everything
        self._values: dict[tuple[str, str], float] = {}  # what is published stays what it is
        self.unneeded = 0

    def __iter__(self) -> Iterator[Sequence[Batch]]:
        """Waves; none that is empty. Each must be carried out before the next is asked for.

        Raises:
            UsageError: If no unit under a rule has its scalar.
            StoreError: If a result cannot be read.
        """
        ledger = self._ledger
        if self._enough is None:
            if len(wave := ledger.batches()):
                yield wave
            return
        for turn in self._turns:
            while True:
                self._look(self._enough)
                wave = ledger.batches(self._needed & turn)
                left = ledger.left
                if not len(wave):
                    break
                yield wave
                if ledger.left == left:  # an executor that does nothing is not asked again
                    return

    def sure(self, places: range) -> int:
        """How many units of a range of places are still to be done, whatever comes out of those before them."""
        return self._ledger.left_in(places, self._needed)

    def possible(self, places: range) -> int:
        """How many of them may still have to be done."""
        return self._ledger.left_in(places, self._possible)

    def _look(self, enough: Enough) -> None:
        """Find out what is needed and what may be, bool [units] each, as far as results say."""
        needed, possible = (np.ones(len(self._plan.units), dtype=bool) for _ in range(2))
        with open_run(self._directory) as run:
            ids = self._plan.units.ids

            endings = enough.endings(functools.partial(self._value, run))
            for ending in endings:
                _check_scalar(run, [ids[place] for place in ending.places[: ending.needed]], ending)
                needed[ending.places.start + ending.needed : ending.places.stop] = False
                possible[ending.unneeded.start : ending.unneeded.stop] = False
        self._needed, self._possible = needed, possible
        self.unneeded = sum(self._ledger.left_in(ending.unneeded) for ending in endings)

    def _value(self, run: Run, unit_id: str, scalar: str) -> float | None:
        if self._ledger.is_open(unit_id):  # one that failed before this run is tried again: it has not run yet
            return None
        if (unit_id, scalar) not in self._values:
            value = run.value_of(unit_id, scalar)
            if value is None:
                return None
            self._values[unit_id, scalar] = value
        return self._values[unit_id, scalar]


def at_least(plan: Plan) -> np.ndarray:
    """Which units of a plan are needed whatever comes out of them, bool [units]: all without stop rules."""
    needed = np.ones(len(plan.units), dtype=bool)
    for ending in Enough(plan.stop_rules, plan.units, plan.batches()).endings(lambda unit_id, scalar: None):
        needed[ending.places.start + ending.needed : ending.places.stop] = False
    return needed


def _by_model(plan: Plan) -> list[np.ndarray]:
    """The units of each model, bool [units], in the order of the plan."""
    found: dict[str, np.ndarray] = {}
    for group, places in plan.units.places():
        turn = found.setdefault(group.common.model, np.zeros(len(plan.units), dtype=bool))
        turn[places.start : places.stop] = True
    return list(found.values())


def _check_scalar(run: Run, unit_ids: Sequence[str], ending: Ending) -> None:
    """Refuse to go on where results have no such number at all."""
    if ending.effort is None or ending.effort.estimate.n:
        return
    published = next((record for record in run.units(ending.rule.probe) if record.unit_id in set(unit_ids)), None)
    if published is not None and ending.rule.scalar not in published.summary:
        raise UsageError(
            f"stop: results of probe {ending.rule.probe!r} have no scalar {ending.rule.scalar!r}",
            expected=", ".join(published.summary) or "a probe with scalars",
            got=ending.rule.scalar,
            hint="name one of these; what was published stays in its directory, the corrected run gets another one",
        )
