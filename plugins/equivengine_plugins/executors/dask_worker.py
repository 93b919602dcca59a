"""What runs in a Dask worker: it hands each batch to a process of units, which it keeps for the next one."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Sequence

import equivengine as eqv
from equivengine_plugins.executors.unit_process import Death, Died, UnitProcess, threads_environment

_idle: dict[tuple[bytes, tuple[tuple[str, str], ...]], list[UnitProcess]] = defaultdict(list)
_busy: dict[bytes, set[UnitProcess]] = defaultdict(set)
_ended: set[bytes] = set()
_lock = threading.Lock()


def begin(work: bytes) -> None:
    """Let processes be started for a run (again)."""
    with _lock:
        _ended.discard(work)


def run(
    work: bytes, ids: tuple[str, ...], environments: Sequence[dict[str, str]], threads: int | None
) -> tuple[eqv.UnitOutcome, ...] | Death | None:
    """Carry out one batch, as a Dask task.

    Args:
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
    key = (work, tuple(sorted(environment.items())))
    with _lock:
        if work in _ended:
            return Death("was ended with the run", "WorkerLost")
        process = _idle[key].pop() if _idle[key] else UnitProcess(work, environment)
        _busy[work].add(process)
    try:
        return process.run(ids)
    except Died as died:
        return died.death
    except KeyboardInterrupt:  # Dask takes that for the end of its worker
        return None
    finally:
        with _lock:
            _busy[work].discard(process)
            if work not in _ended:
                _idle[key].append(process)


def end(work: bytes) -> None:
    """End all processes of a run, busy or idle, in this worker."""
    with _lock:
        _ended.add(work)
        keys = [key for key in _idle if key[0] == work]
        processes = [process for key in keys for process in _idle.pop(key)] + list(_busy.pop(work, ()))
    for process in processes:
        process.close()


def _environment(environments: Sequence[dict[str, str]], threads: int | None) -> dict[str, str]:
    from distributed import get_worker

    worker = get_worker()
    if environments:
        return environments[int(worker.name)]
    if threads is None and os.environ.get("OMP_NUM_THREADS"):
        return {}
    cores = len(os.sched_getaffinity(0))
    return threads_environment(threads or max(1, cores // worker.state.nthreads))
