"""The array of a run: cuts the plan into slices, submits them, tells what becomes of units, and cleans up."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pickle
import secrets
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.executors.attempts import LIMIT, Batch, Ids, ids_of
from equivengine_plugins.executors.slurm_task import Journal, Slice, lost
from equivengine_plugins.executors.unit_process import Death, threads_of_each

if TYPE_CHECKING:
    from equivengine_plugins.executors.slurm import SlurmParams

#: Below the run directory: what submitit writes, and the journals of tasks.
FOLDER = "slurm"

#: How long tasks may take to end once they were told to, seconds.
_ENDING = 30.0

#: How long before its time limit a task is told of it, at most, seconds.
_WARNING = 90

#: Slurm puts a task that was preempted back into its queue within this time, or it never does, seconds.
_REQUEUING = 300.0

_GOLDEN = (5**0.5 - 1) / 2

OnDone = Callable[[Batch, tuple[eqv.UnitOutcome, ...]], None]


def slices(batches: Sequence[Batch], count: int) -> list[list[Batch]]:
    """Cut a plan for an array: the same plan is cut in the same way each time.

    Models stay together, so that a task loads few of them. Within a model, batch ``i`` stands at the fractional part of
    ``i`` times the golden ratio, which is spread so evenly over every stretch that each slice gets its share of cheap
    and of expensive probes.

    Args:
        batches: In the order of the plan.
        count: Tasks at most.

    Returns:
        Slices that differ by one batch at most, none empty; in each, batches stand in the order of the plan.
    """
    order: list[int] = []
    models: dict[str, list[int]] = {}
    for place, batch in enumerate(batches):
        models.setdefault(batch[0].model, []).append(place)
    for places in models.values():
        order += [place for _, place in sorted((i * _GOLDEN % 1, place) for i, place in enumerate(places))]
    count = min(count, len(batches))
    ends = [len(order) * number // count for number in range(count + 1)] if count else []
    rank = {model: number for number, model in enumerate(models)}
    return [
        [batches[place] for place in sorted(order[start:end], key=lambda place: (rank[batches[place][0].model], place))]
        for start, end in pairwise(ends)
    ]


class Array:
    """The tasks of a run.

    Args:
        params: The executor's.
        work: The run's.
    """

    def __init__(self, params: SlurmParams, work: eqv.Work) -> None:
        self._params = params
        self._work = work
        self._packed = pickle.dumps(work)
        # Of this command alone: another one may be at work on the same run.
        self._folder = Path(work.directory) / FOLDER / secrets.token_hex(4)
        self._submitted = 0
        self._waiting: dict[Ids, Batch] = {}
        self._first: dict[str, Ids] = {}
        self._deaths: dict[Ids, list[Death]] = {}
        self._idle_ends = 0
        self._preempted: dict[str, float] = {}
        self._arrays: set[str] = set()
        self._jobs: list[tuple[Any, Journal, list[Batch]]] = []

    def carry_out(self, batches: Sequence[Batch], on_done: OnDone) -> None:
        """Run every batch; as `equivengine.Executor.map`.

        Raises:
            EngineError: If tasks cannot be submitted, are canceled, or end before they have begun anything.
        """
        if not batches:
            return
        self._waiting = {ids_of(batch): batch for batch in batches}
        self._first = {ids[0]: ids for ids in self._waiting}
        clean = False
        try:
            self._submit(slices(batches, self._params.tasks))
            while self._jobs:
                time.sleep(self._params.look)
                self._look(on_done)
            clean = True
        except KeyboardInterrupt:
            clean = True
            raise
        finally:
            self._cancel()
            if clean:
                shutil.rmtree(self._folder, ignore_errors=True)
                with contextlib.suppress(OSError):  # not empty, or never made
                    self._folder.parent.rmdir()

    def _submit(self, parts: Sequence[Sequence[Batch]]) -> None:
        if not parts:
            return
        import submitit

        options = self._params
        executor = submitit.AutoExecutor(self._folder, cluster=options.cluster, slurm_max_num_timeout=options.timeouts)
        named: dict[str, Any] = {"partition": options.partition, "account": options.account, "qos": options.qos}
        named |= {"constraint": options.constraint, "array_parallelism": options.parallel}
        try:
            executor.update_parameters(
                name="equivengine",
                timeout_min=options.time,
                cpus_per_task=options.cpus,
                gpus_per_node=options.gpus,
                tasks_per_node=1,
                nodes=1,
                slurm_signal_delay_s=min(_WARNING, 60 * options.time // 4),
                slurm_additional_parameters={"requeue": True},  # also where the cluster's default is not to
                **({"mem_gb": options.memory} if options.memory else {}),
                **{f"slurm_{name}": value for name, value in named.items() if value is not None},
                **({f"{options.cluster}_setup": options.setup} if options.setup else {}),
            )
            tasks = []
            for part in parts:
                journal = self._folder / f"task-{self._submitted}.jsonl"
                self._submitted += 1
                ids = tuple(ids_of(batch) for batch in part)
                tasks.append(Slice(self._packed, ids, journal, self._threads(len(parts))))
            with executor.batch():
                jobs = [executor.submit(task) for task in tasks]
        except (RuntimeError, ValueError, OSError) as error:  # submitit's FailedJobError is a RuntimeError
            raise eqv.EngineError(
                "the tasks could not be submitted to Slurm",
                got=" ".join(str(error).split()),
                hint="look at the parameters of --set-executor; `sinfo` and `sacctmgr` list partitions and accounts",
            ) from error
        self._arrays.update(job.job_id.partition("_")[0] for job in jobs)
        for job, task, part in zip(jobs, tasks, parts, strict=True):
            self._jobs.append((job, Journal(task.journal), list(part)))

    def _threads(self, tasks: int) -> int:
        options = self._params
        if options.threads is not None or options.cluster == "slurm":
            return options.threads or options.cpus
        return min(options.cpus, threads_of_each(tasks))

    def _look(self, on_done: OnDone) -> None:
        for entry in list(self._jobs):
            job, journal, part = entry
            ended = job.done()  # asked first: what it wrote before its end is read after it
            preempted = not ended and self._preempted_for_good(job)
            self._hear(journal, on_done)
            if not (ended or preempted):
                continue
            self._jobs.remove(entry)
            left = [batch for batch in part if ids_of(batch) in self._waiting]
            if preempted:
                self._submit([left] if left else [])
                continue
            self._check(job, journal, left)
            if left:
                self._again(job, journal, left, on_done)

    def _preempted_for_good(self, job: Any) -> bool:
        """Whether a task lost its node and is not in the queue again; submitit waits for it for ever."""
        since = self._preempted.setdefault(job.job_id, time.monotonic())
        if job.state == "PREEMPTED" and time.monotonic() - since > _REQUEUING:
            job.get_info(mode="force")  # what submitit knows may be minutes old
        if job.state != "PREEMPTED":
            del self._preempted[job.job_id]
            return False
        return time.monotonic() - since > _REQUEUING

    def _hear(self, journal: Journal, on_done: OnDone) -> None:
        for outcomes in journal.news():
            batch = self._waiting.pop(tuple(outcome.unit_id for outcome in outcomes), None)
            if batch is not None:
                on_done(batch, outcomes)

    def _check(self, job: Any, journal: Journal, left: Sequence[Batch]) -> None:
        """Raise what ended a task for good."""
        state = job.state
        problem = job.exception()
        result = None if problem is not None else job.result()
        if isinstance(result, eqv.EngineError):
            raise result
        if state.startswith("CANCELLED"):
            raise eqv.EngineError(
                f"the task {job.job_id} was canceled", hint=f"what was published stays: {self._resume}"
            )
        if problem is not None and "timed-out too many times" in str(problem):
            raise eqv.EngineError(
                f"the task {job.job_id} ran into its time limit more than {self._params.timeouts} times",
                expected=f"{len(left)} batches within {self._params.time} minutes each",
                hint=f"with more --set-executor time=MINUTES, or more tasks: {self._resume}",
            )
        if not left or journal.begun is not None:
            return
        # It ended between two batches, or before the first: none is to blame.
        self._idle_ends = 0 if journal.finished else self._idle_ends + 1
        if journal.process is None or self._idle_ends >= LIMIT:
            raise eqv.PluginError(
                f"the task {job.job_id} ended before it had begun anything",
                expected="a task that loads equivengine and its plugins",
                got=f"state {state}: {_last_line(job)}",
                hint=f"look at its output in {self._folder} and then {self._resume}",
            )

    def _again(self, job: Any, journal: Journal, left: Sequence[Batch], on_done: OnDone) -> None:
        """Submit what a task that died has left undone; the batch that it died in at last, and alone."""
        if journal.begun is None:
            self._submit([left])
            return
        ids = self._first[journal.begun]
        suspect = self._waiting[ids]
        deaths = self._deaths.setdefault(ids, [])
        deaths.append(lost(job.state))
        others = [batch for batch in left if batch is not suspect]
        if len(deaths) >= LIMIT:
            why = f"the task of this unit died {len(deaths)} times in the middle of it: its process {deaths[-1].cause}"
            on_done(self._waiting.pop(ids), self._work.record_failure(suspect, why, deaths[-1].kind))
            self._submit([others] if others else [])
        else:
            self._submit([others, [suspect]] if others else [[suspect]])

    @property
    def _resume(self) -> str:
        """The command that goes on with the run, on this executor as it was set."""
        words = ["equivengine", "resume", self._work.directory, "--executor", "slurm"]
        for name, value in self._params.model_dump(exclude_unset=True).items():
            words += ["--set-executor", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
        return shlex.join(words)

    def _cancel(self) -> None:
        """End all tasks, and wait until they have ended."""
        if self._params.cluster == "local":  # submitit would end what watches over them, not without a traceback
            for number in (signal.SIGINT, signal.SIGKILL):  # the first is ignored below `nohup` and the like
                for job, journal, _ in self._jobs:
                    collections.deque(journal.news(), 0)
                    if journal.process is not None and not job.done():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(journal.process, number)
                self._wait(_ENDING / 6)
            for job, _, _ in self._jobs:
                if not job.done():
                    job.cancel(check=False)
        elif self._arrays:
            # If all are done, Slurm may still have put one into its queue again while it finished.
            which = [] if self._jobs else ["--state=PENDING"]
            words = ["scancel", "--quiet", *which, *sorted(self._arrays)]
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # whatever ended the run is to be told
                subprocess.run(words, capture_output=True, check=False, timeout=_ENDING)
        self._wait(_ENDING)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(not job.done(force_check=True) for job, _, _ in self._jobs) and time.monotonic() < deadline:
            time.sleep(0.1)


def _last_line(job: Any) -> str:
    text = job.stderr() or ""
    return text.strip().splitlines()[-1] if text.strip() else "nothing was written"
