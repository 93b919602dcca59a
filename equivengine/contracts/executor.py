"""What an executor plugin implements: carry work to wherever it runs. The store makes repetition harmless."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from equivengine.contracts.unit import Batch, UnitOutcome


class Executor:
    """Runs a function over batches of units, at least once each, in any order.

    Attributes:
        name: What ``--executor`` takes.
        summary: One line for ``equivengine ls executors``.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""

    def map(
        self,
        function: Callable[[Batch], tuple[UnitOutcome, ...]],
        batches: Iterable[Batch],
        *,
        on_done: Callable[[Batch, tuple[UnitOutcome, ...]], None],
    ) -> None:
        """Call ``function(batch)`` for every batch and ``on_done(batch, outcomes)`` in the parent process after each.

        A batch is a tuple of units that are computed together, most often of one: never split or merge them. Batches
        and outcomes hold strings and numbers only and can be pickled. There is one outcome for each unit of the batch,
        in order. ``function`` turns every ordinary exception into failed outcomes; KeyboardInterrupt passes through and
        must be passed on.
        """
        raise NotImplementedError
