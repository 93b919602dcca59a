"""One unit after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import equivengine as eqv

EQUIVENGINE_API = (1, 0)


class Serial(eqv.Executor):
    """Runs units in order, in the calling process."""

    name = "serial"
    summary = "one unit after the other, in this process"

    def map(
        self,
        function: Callable[[eqv.Unit], eqv.UnitOutcome],
        units: Iterable[eqv.Unit],
        *,
        on_done: Callable[[eqv.Unit, eqv.UnitOutcome], None],
    ) -> None:
        """Call ``function`` on each unit in order."""
        for unit in units:
            on_done(unit, function(unit))


@eqv.hookimpl
def equivengine_register_executors() -> list[type[eqv.Executor]]:
    """Register `Serial`."""
    return [Serial]
