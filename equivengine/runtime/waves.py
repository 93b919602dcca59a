"""The order in which a plan is carried out: all at once, or wave by wave where results decide what is needed."""

from __future__ import annotations

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
    the same for any executor, whatever finishes first.

    Args:
        plan: The plan.
        directory: Where it is carried out.
        ledger: What is still to be done.

    Attributes:
        unneeded: How many units need not be done, as far as is known; those done before a look was reached not counted.
    """

    def __init__(self, plan: Plan, directory: Path, ledger: Ledger) -> None:
        self._plan, self._directory, self._ledger = plan, directory, ledger
        self._enough = Enough(plan.stop_rules, plan.units, plan.batches()) if plan.stop_rules else None
        self.unneeded = 0

    def __iter__(self) -> Iterator[Sequence[Batch]]:
        """Waves; none that is empty. Each must be carried out before the next is asked for.

        Raises:
            UsageError: If no unit under a rule has its scalar.
            StoreError: If a result cannot be read.
        """
        ledger = self._ledger
        while True:
            wave = ledger.batches() if self._enough is None else ledger.batches(self._needed(self._enough))
            left = ledger.left
            if not len(wave):
                return
            yield wave
            if self._enough is None or ledger.left == left:  # an executor that does nothing is not asked again
                return

    def _needed(self, enough: Enough) -> np.ndarray:
        """Which units are needed, bool [units], as far as results say."""
        needed = np.ones(len(self._plan.units), dtype=bool)
        with open_run(self._directory) as run:
            ids = self._plan.units.ids

            def value_of(unit_id: str, scalar: str) -> float | None:
                # A unit that failed before this run is tried again: it has not run yet.
                return None if self._ledger.is_open(unit_id) else run.value_of(unit_id, scalar)

            endings = enough.endings(value_of)
            for ending in endings:
                _check_scalar(run, [ids[place] for place in ending.places[: ending.needed]], ending)
                needed[ending.places.start + ending.needed : ending.places.stop] = False
            decided = [ending.unneeded for ending in endings]
        self.unneeded = sum(self._ledger.left_in(places) for places in decided)
        return needed


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
