"""One batch of units after the other, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from pydantic import Field

import equivengine as eqv

EQUIVENGINE_API = (1, 0)

Batch = tuple[eqv.Unit, ...]

#: Batches that take longer are published before the next one begins.
BESIDE_SECONDS = 1.0


class SerialParams(eqv.Params):
    """What ``--set-executor`` takes."""

    threads: int | None = Field(
        None, ge=1, le=4096, description="Threads of torch; as the environment says, or all cores, when unset."
    )


class Serial(eqv.Executor):
    """Runs batches in order, in the calling process; publishes what took no time beside the next one."""

    name = "serial"
    summary = "one unit after the other, in this process"
    Params = SerialParams
    params: SerialParams

    def map(
        self,
        function: eqv.Work,
        batches: Iterable[Batch],
        *,
        on_done: Callable[[Batch, tuple[eqv.UnitOutcome, ...]], None],
    ) -> None:
        """Compute each batch in order. See `equivengine.Executor.map`."""
        if self.params.threads is None:
            _in_order(function, batches, on_done)
            return
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.params.threads)
        try:
            _in_order(function, batches, on_done)
        finally:
            torch.set_num_threads(before)


def _in_order(
    work: eqv.Work, batches: Iterable[Batch], on_done: Callable[[Batch, tuple[eqv.UnitOutcome, ...]], None]
) -> None:
    """Flushing to disk takes milliseconds, in which the next batch can begin.

    A batch is reported when it is published, not before. One that took longer than `BESIDE_SECONDS` is published at
    once: it would be reported late, for the sake of little.
    """
    waiting: tuple[Batch, Future[tuple[eqv.UnitOutcome, ...]]] | None = None

    def report() -> None:
        nonlocal waiting
        if waiting is not None:
            batch, future = waiting
            waiting = None
            on_done(batch, future.result())

    with ThreadPoolExecutor(1, "equivengine-publish") as publisher:
        try:
            for batch in batches:
                begin = time.perf_counter()
                publish = work.compute(batch)
                report()
                waiting = batch, publisher.submit(publish)
                if time.perf_counter() - begin > BESIDE_SECONDS:
                    report()
        finally:
            report()


@eqv.hookimpl
def equivengine_register_executors() -> list[type[eqv.Executor]]:
    """Register `Serial`."""
    return [Serial]
