"""One batch of units after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import Field

import equivengine as eqv

EQUIVENGINE_API = (1, 0)

Batch = tuple[eqv.Unit, ...]


class SerialParams(eqv.Params):
    """What ``--set-executor`` takes."""

    threads: int | None = Field(
        None, ge=1, le=4096, description="Threads of torch; as the environment says, or all cores, when unset."
    )


class Serial(eqv.Executor):
    """Runs batches in order, in the calling process."""

    name = "serial"
    summary = "one unit after the other, in this process"
    Params = SerialParams
    params: SerialParams

    def map(
        self,
        function: Callable[[Batch], tuple[eqv.UnitOutcome, ...]],
        batches: Iterable[Batch],
        *,
        on_done: Callable[[Batch, tuple[eqv.UnitOutcome, ...]], None],
    ) -> None:
        """Call ``function`` on each batch in order."""
        if self.params.threads is None:
            for batch in batches:
                on_done(batch, function(batch))
            return
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.params.threads)
        try:
            for batch in batches:
                on_done(batch, function(batch))
        finally:
            torch.set_num_threads(before)


@eqv.hookimpl
def equivengine_register_executors() -> list[type[eqv.Executor]]:
    """Register `Serial`."""
    return [Serial]
