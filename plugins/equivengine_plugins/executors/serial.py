"""One batch of units after the other, in this process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from pydantic import Field

import equivengine as eqv

if TYPE_CHECKING:
    from equivengine_plugins.executors.attempt_files import AttemptFiles

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
    """Runs batches in order, in the calling process; publishes what took no time beside the next one.

    A unit that ends this process ends the run with it. The next process that goes on with the run says so, tries that
    unit after all others, and records it as failed once it has cost three.
    """

    name = "serial"
    summary = "one unit after the other, in this process"
    Params = SerialParams
    params: SerialParams

    def __init__(self, params: SerialParams | None = None) -> None:
        super().__init__(params)
        self._said: set[str] = set()

    def map(
        self,
        function: eqv.Work,
        batches: Iterable[Batch],
        *,
        on_done: Callable[[Batch, tuple[eqv.UnitOutcome, ...]], None],
    ) -> None:
        """Compute each batch in order, those last that have ended a process. See `equivengine.Executor.map`."""
        from equivengine_plugins.executors.attempt_files import AttemptFiles

        with contextlib.closing(AttemptFiles(function.directory)) as files:
            for text in files.cautions():
                if text not in self._said:  # a run may call several times
                    self._said.add(text)
                    self.on_caution(text)
            if self.params.threads is None:
                _in_order(function, batches, on_done, files)
                return
            import torch

            before = torch.get_num_threads()
            torch.set_num_threads(self.params.threads)
            try:
                _in_order(function, batches, on_done, files)
            finally:
                torch.set_num_threads(before)


def _in_order(
    work: eqv.Work,
    batches: Iterable[Batch],
    on_done: Callable[[Batch, tuple[eqv.UnitOutcome, ...]], None],
    files: AttemptFiles,
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

    aside: list[Batch] = []
    with ThreadPoolExecutor(1, "equivengine-publish") as publisher:
        try:
            for batch in batches:
                if files.of(batch) is not None:
                    aside.append(batch)
                    continue
                begin = time.perf_counter()
                with files.begun(batch):
                    publish = work.compute(batch)
                report()
                waiting = batch, publisher.submit(publish)
                if time.perf_counter() - begin > BESIDE_SECONDS:
                    report()
        finally:
            report()
    for batch in aside:  # with nothing beside it
        on_done(batch, _again(work, batch, files))


def _again(work: eqv.Work, batch: Batch, files: AttemptFiles) -> tuple[eqv.UnitOutcome, ...]:
    """Try a batch that has ended processes before, or give it up."""
    from equivengine_plugins.executors.attempts import LIMIT, given_up

    past = files.of(batch)
    if past is not None and len(past.deaths) >= LIMIT:
        outcomes = work.record_failure(batch, given_up(batch, past.deaths), past.deaths[-1].kind)
        files.gave_up(batch)
        return outcomes
    with files.begun(batch):
        publish = work.compute(batch)
    outcomes = publish()
    files.finished(batch)
    return outcomes


@eqv.hookimpl
def equivengine_register_executors() -> list[type[eqv.Executor]]:
    """Register `Serial`."""
    return [Serial]
