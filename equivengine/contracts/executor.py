"""What an executor plugin implements: carry units to wherever they run. The store makes repetition harmless."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from equivengine.contracts.unit import Unit, UnitOutcome


class Executor:
    """Runs a function over units, at least once each, in any order.

    Attributes:
        name: What ``--executor`` takes.
        summary: One line for ``equivengine ls executors``.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""

    def map(
        self,
        function: Callable[[Unit], UnitOutcome],
        units: Iterable[Unit],
        *,
        on_done: Callable[[Unit, UnitOutcome], None],
    ) -> None:
        """Call ``function(unit)`` for every unit and ``on_done(unit, outcome)`` in the parent process after each.

        ``function`` turns every ordinary exception into a failed outcome; KeyboardInterrupt passes through and must be
        passed on.
        """
        raise NotImplementedError
