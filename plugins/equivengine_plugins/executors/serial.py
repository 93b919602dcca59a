"""One batch of units after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import equivengine as eqv

EQUIVENGINE_API = (1, 0)


class Serial(eqv.Executor):
    """Runs batches in order, in the calling process."""

    name = "serial"
    summary = "one unit after the other, in this process"

    def map(
        self,
        function: Callable[[tuple[eqv.Unit, ...]], tuple[eqv.UnitOutcome, ...]],
        batches: Iterable[tuple[eqv.Unit, ...]],
        *,
        on_done: Callable[[tuple[eqv.Unit, ...], tuple[eqv.UnitOutcome, ...]], None],
    ) -> None:
        """Call ``function`` on each batch in order."""
        for batch in batches:
            on_done(batch, function(batch))


@eqv.hookimpl
def equivengine_register_executors() -> list[type[eqv.Executor]]:
    """Register `Serial`."""
    return [Serial]
