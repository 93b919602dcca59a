"""A process that runs units for this one. What a unit does to it, crash, exit or eat all memory, hits it alone."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import equivengine as eqv
from equivengine_plugins.executors.unit_worker import BEGUN, DONE, READY, REFUSED, STOPPED

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from equivengine_plugins.executors.unit_worker import main; main()"
)

#: How often a process that ended by itself before it had begun anything is replaced, and one that others have killed.
_STARTS, _KILLED_STARTS = 3, 50


_BY_OTHERS = (-signal.SIGKILL, -signal.SIGTERM)


@dataclass(frozen=True)
class Death:
    """How a process ended in the middle of a batch.

    Attributes:
        cause: For people, as the end of "its process ...".
        kind: One word: "Signal", "OutOfMemory", "Exit" or "WorkerLost".
    """

    cause: str
    kind: str


class Died(Exception):
    """A process ended in the middle of a batch.

    Args:
        death: How.
    """

    def __init__(self, death: Death) -> None:
        super().__init__(death.cause)
        self.death = death


def threads_environment(threads: int) -> dict[str, str]:
    """Environment variables that hold every library to so many threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


def threads_of_each(processes: int, given: int | None = None) -> int:
    """Threads for each of so many processes of this machine: as given, as OMP_NUM_THREADS says, or an equal share."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    own = given or (int(said) if said.isdecimal() else 0)
    return own or max(1, len(os.sched_getaffinity(0)) // processes)


class UnitProcess:
    """A process of its own for units of one run: started with the first batch, and again after it has died.

    Args:
        work: What it does, pickled: reading it needs torch, which only the process itself is to load.
        environment: Environment variables that differ from those of this process.
        ignored: Signals that others may send to all processes alike; this one decides what comes of them.
    """

    def __init__(
        self, work: bytes, environment: Mapping[str, str] | None = None, ignored: Sequence[signal.Signals] = ()
    ) -> None:
        self._work = work
        self._ignored = [str(int(number)) for number in ignored]
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Id of the process that was started last; None before the first batch."""
        return None if self._process is None else self._process.pid

    def run(self, ids: tuple[str, ...]) -> tuple[eqv.UnitOutcome, ...]:
        """Carry out a batch.

        Args:
            ids: Of its units.

        Raises:
            Died: If the process ended in the middle of it.
            EngineError: If the process refuses to work (its plugins are not those of the plan), or nothing can be kept.
            KeyboardInterrupt: If a unit raised it.
        """
        return self._ask("__call__", ids)

    def record_failure(self, ids: tuple[str, ...], message: str, error_type: str) -> tuple[eqv.UnitOutcome, ...]:
        """As `equivengine.Work.record_failure`. Raises as `run`."""
        return self._ask("record_failure", ids, message, error_type)

    def _ask(self, method: str, *arguments: Any) -> tuple[eqv.UnitOutcome, ...]:
        ended = killed_by_others = 0
        while ended < _STARTS and killed_by_others < _KILLED_STARTS:
            killed = killed_for_memory()
            try:
                if self._process is None or self._process.poll() is not None:
                    self._start()
                self._connection.send_bytes(pickle.dumps((method, arguments)))
                self._expect(BEGUN)
            except (EOFError, OSError):  # idle for long, or killed at its start: no unit is to blame
                death = self._death(killed)
                by_others = self._process is not None and self._process.returncode in _BY_OTHERS
                ended, killed_by_others = ended + (not by_others), killed_by_others + by_others
                continue
            try:
                return self._expect(DONE)
            except (EOFError, OSError):
                raise Died(self._death(killed)) from None
        raise eqv.PluginError(
            "processes of units end before they have begun anything",
            expected="a process that loads its plugins and waits for units",
            got=death.cause,
            hint="look at what was written to stderr; --executor serial runs units in this process",
        )

    def close(self) -> None:
        """End the process, also in the middle of a batch; from any thread. It cannot be used any more."""
        with self._lock:
            self._closed = True
            self._end()

    def _start(self) -> None:
        ours, theirs = Pipe()
        arguments = [sys.executable, "-P", "-c", _START, json.dumps(sys.path), str(theirs.fileno())]
        arguments += self._ignored
        with self._lock:
            if self._closed:
                raise Died(Death("was ended with the run", "WorkerLost"))
            try:
                self._process = subprocess.Popen(
                    arguments,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **self._environment},
                    process_group=0,  # Ctrl-C on a terminal goes to this process alone
                )
            except OSError as error:
                raise eqv.EngineError(
                    "a process of units cannot be started",
                    got=error,
                    hint="resume the run with fewer processes, or with --executor serial",
                ) from error
        theirs.close()
        self._connection = ours
        self._connection.send_bytes(self._work)
        self._expect(READY)

    def _expect(self, word: str) -> Any:
        """Wait for an answer; EOFError if the process ended instead."""
        assert self._process is not None
        while not self._connection.poll(1.0):
            if self._process.poll() is not None and not self._connection.poll(0):
                raise EOFError  # though one of its own children may hold the connection open
        said, what = self._connection.recv()
        if said in (REFUSED, STOPPED):
            raise what
        assert said == word
        return what

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _death(self, killed_before: int) -> Death:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):  # its end of the connection closes a little before
            self._process.wait(10)
        code = self._process.poll()
        if code is None:
            self._end()
            return Death("stopped answering", "WorkerLost")
        if code >= 0:
            return Death(f"exited with code {code}", "Exit")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        if -code == signal.SIGKILL and killed_for_memory() > killed_before:
            return Death("was killed by the kernel, which had run out of memory (SIGKILL)", "OutOfMemory")
        return Death(f"was killed by {name}", "Signal")


def killed_for_memory() -> int:
    """How many processes the kernel has killed for want of memory: in this control group, or on this machine."""
    group = ""
    with contextlib.suppress(OSError, IndexError):
        group = re.findall(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)[0]
    for path in (Path("/sys/fs/cgroup") / group / "memory.events", Path("/proc/vmstat")):
        with contextlib.suppress(OSError, IndexError):
            return int(re.findall(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)[0])
    return 0
