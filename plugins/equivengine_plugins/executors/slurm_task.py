"""One task of a Slurm array: its slice of the plan, one batch after the other, and a journal of what became of each."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import equivengine as eqv
from equivengine_plugins.executors.attempts import Attempts, Ids
from equivengine_plugins.executors.unit_process import Death, Died, UnitProcess, threads_environment

#: Before it takes a node away, Slurm may signal all processes of a task. It is the task that goes back to the queue.
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Slice:
    """What a task does. Submitit pickles it, calls it on the node, and asks it how to go on when it must stop.

    Attributes:
        work: The run's, pickled.
        batches: Ids of the units of each batch.
        journal: Where it writes what became of them; read by whoever has submitted it.
        threads: Threads of torch.
    """

    work: bytes
    batches: tuple[Ids, ...]
    journal: Path
    threads: int

    def __call__(self) -> eqv.EngineError | None:
        """Carry out the slice. What was published before, by a former life of this task, is skipped.

        Returns:
            What keeps it from going on, if anything does.
        """
        process = UnitProcess(self.work, threads_environment(self.threads), _SIGNALS)
        attempts: Attempts[Ids] = Attempts(self.batches)
        try:
            with open(self.journal, "a", encoding="utf-8") as journal:
                journal.write("\n")  # a former life may have ended in the middle of a line
                _write(journal, {"process": os.getpid()})
                while (batch := attempts.next()) is not None:
                    _write(journal, {"begun": batch[0]})
                    outcomes = _run(process, attempts, batch)
                    if outcomes is not None:
                        _write(journal, {"outcomes": [asdict(outcome) for outcome in outcomes]})
        except eqv.EngineError as error:
            return error
        finally:
            process.close()
        return None

    def checkpoint(self) -> Any:
        """Go on as it is: the store knows what is done."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _run(process: UnitProcess, attempts: Attempts[Ids], batch: Ids) -> tuple[eqv.UnitOutcome, ...] | None:
    """The outcomes, or None if the batch comes again."""
    try:
        outcomes = process.run(batch)
    except Died as died:
        why = attempts.died(batch, died.death)
        return None if why is None else process.record_failure(batch, why, died.death.kind)
    attempts.finished()
    return outcomes


def _write(journal: Any, entry: dict[str, Any]) -> None:
    journal.write(json.dumps(entry) + "\n")
    journal.flush()


class Journal:
    """Reads a journal while it grows.

    Args:
        path: The file; it may not exist yet.

    Attributes:
        begun: First unit of the batch that was begun last, if nothing has become of it.
        finished: How many batches have finished.
        process: Id of the task's process, on its node.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun: str | None = None
        self.finished = 0
        self.process: int | None = None
        self._offset = 0

    def news(self) -> Iterator[tuple[eqv.UnitOutcome, ...]]:
        """The outcomes of each batch that has finished since the last call."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # cut off where a task died; what it told of is in the store
                continue
            if "process" in entry:
                self.process = entry["process"]
            elif "begun" in entry:
                self.begun = entry["begun"]
            else:
                self.begun = None
                self.finished += 1
                yield tuple(eqv.UnitOutcome(**one) for one in entry["outcomes"])


def lost(state: str) -> Death:
    """What to say of a batch whose task ended, process and all."""
    kind = "OutOfMemory" if state == "OUT_OF_MEMORY" else "WorkerLost"
    return Death(f"ended with its task, in Slurm's state {state}", kind)
