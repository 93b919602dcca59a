"""Kills processes of units of a run on Dask, and lets the run get on: `bench/executors.py` asks for it.

A process is killed only if

- it has published a batch since it started, so that the run gets on however long a process takes to start, on a machine
  however busy: no more processes are killed than batches are published;
- a batch is under way in it, so that each kill costs one;
- that batch has lost two processes at most once before: after the third it would be recorded as failed, as promised.

Who runs what is known from the command itself, which notes it in a file: `python bench/unit_kills.py LOG WORDS...` is
`equivengine WORDS...` with such notes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equivengine_plugins.executors.attempts import LIMIT
from equivengine_plugins.executors.unit_process import Died, UnitProcess


def note_batches(log: Path) -> None:
    """From here on, write a line when a batch is begun in a process of units, is done, or has lost its process."""
    board = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    run = UnitProcess.run

    def noting(self: UnitProcess, ids: tuple[str, ...]) -> Any:
        def note(what: str) -> None:
            entry = {"what": what, "slot": id(self), "batch": ids[0], "pid": self.pid}
            os.write(board, f"{json.dumps(entry)}\n".encode())

        note("begun")
        try:
            outcomes = run(self, ids)
        except Died:
            note("died")
            raise
        note("done")
        return outcomes

    UnitProcess.run = noting  # type: ignore[method-assign]  # the executor's own, with notes


@dataclass
class Slot:
    """What one process of units is at.

    Attributes:
        batch: First unit of the batch that is under way, if one is.
        worthy: Id of the process, once it has published a batch.
    """

    batch: str | None = None
    worthy: int | None = None


class Killer:
    """Kills one process at a time.

    Args:
        log: What `note_batches` writes.
        every: Least time between kills, seconds.
        rng: Chooses among the processes that may be killed.

    Attributes:
        kills: How many it has killed.
        deaths: How many processes each batch has lost, by its first unit.
    """

    def __init__(self, log: Path, every: float, rng: random.Random) -> None:
        self._log, self._every, self._rng = log, every, rng
        self._slots: dict[int, Slot] = {}
        self._read = 0
        self._due = time.monotonic() + every
        self.kills = 0
        self.deaths: Counter[str] = Counter()

    def strike(self) -> None:
        """Kill a process, if it is time and one may be killed."""
        if time.monotonic() < self._due:
            return
        self._catch_up()
        found = [slot for slot in self._slots.values() if self._may_be_killed(slot)]
        if not found:
            return
        slot = self._rng.choice(found)
        pid = slot.worthy
        assert pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)  # what it is at must not change between looking and killing
            self._catch_up()
            if slot.worthy == pid and self._may_be_killed(slot):
                os.kill(pid, signal.SIGKILL)
                slot.worthy = None
                self.kills += 1
                self._due = time.monotonic() + self._every
            else:
                os.kill(pid, signal.SIGCONT)

    def _may_be_killed(self, slot: Slot) -> bool:
        return slot.worthy is not None and slot.batch is not None and self.deaths[slot.batch] < LIMIT - 1

    def _catch_up(self) -> None:
        with contextlib.suppress(FileNotFoundError), open(self._log, "rb") as file:
            file.seek(self._read)
            text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read += len(whole)
            for line in whole.splitlines():
                entry = json.loads(line)
                slot = self._slots.setdefault(entry["slot"], Slot())
                slot.batch = entry["batch"] if entry["what"] == "begun" else None
                if entry["what"] == "done":
                    slot.worthy = entry["pid"]
                elif entry["what"] == "died":
                    slot.worthy = None
                    self.deaths[entry["batch"]] += 1


if __name__ == "__main__":
    from equivengine.cli.main import main

    note_batches(Path(sys.argv.pop(1)))
    main()
