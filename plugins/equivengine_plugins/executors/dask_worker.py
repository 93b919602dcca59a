"""What runs in a Dask worker: it hands each batch to a process of units, which it keeps for the next one."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence

import equivengine as eqv
from equivengine_plugins.executors.unit_process import Death, Died, UnitProcess, threads_environment, threads_of_each

#: Processes by the command that they work for and their environment; and commands that have ended.
_idle: dict[tuple[str, tuple[tuple[str, str], ...]], list[UnitProcess]] = defaultdict(list)
_busy: dict[str, set[UnitProcess]] = defaultdict(set)
_ended: set[str] = set()
_lock = threading.Lock()


def greet() -> str:
    """Whether this module can be loaded at all, where that is asked; the version of equivengine there."""
    return eqv.__version__


def run(
    command: str, work: bytes, ids: tuple[str, ...], environments: Sequence[dict[str, str]], threads: int | None
) -> tuple[eqv.UnitOutcome, ...] | Death | None:
    """Carry out one batch, as a Dask task.

    Args:
        command: A word for whoever asks, told from all others: its processes are its own.
        work: The run's, pickled.
        ids: Of the batch's units.
        environments: Environment variables of each worker of a cluster that was started for this run, by name; empty on
            a standing cluster.
        threads: Threads of a process of a standing cluster; an equal share of its cores when None.

    Returns:
        The outcomes, or how the process died; None if a unit asks for the run to be interrupted.

    Raises:
        EngineError: As `UnitProcess.run`.
    """
    environment = _environment(environments, threads)
    key = (command, tuple(sorted(environment.items())))
    with _lock:
        if command in _ended:
            return Death("was ended with the run", "WorkerLost")
        process = _idle[key].pop() if _idle[key] else UnitProcess(work, environment)
        _busy[command].add(process)
    try:
        return process.run(ids)
    except Died as died:
        return died.death
    except KeyboardInterrupt:  # Dask takes that for the end of its worker
        return None
    finally:
        with _lock:
            _busy[command].discard(process)
            if command not in _ended:
                _idle[key].append(process)


def end(command: str) -> None:
    """End all processes of a command, busy or idle, in this worker."""
    with _lock:
        _ended.add(command)
        keys = [key for key in _idle if key[0] == command]
        processes = [process for key in keys for process in _idle.pop(key)] + list(_busy.pop(command, ()))
    for process in processes:
        process.close()


def _environment(environments: Sequence[dict[str, str]], threads: int | None) -> dict[str, str]:
    from distributed import get_worker

    worker = get_worker()
    if environments:
        return environments[int(worker.name)]
    return threads_environment(threads_of_each(worker.state.nthreads, threads))
