"""What processes that are to be disturbed do: runs with the toy plugin, in forks of a server that has imported torch.

Such a child starts in milliseconds, and nothing that it holds is shared with the test.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

from equivengine.runtime.config import RunConfig, validated

#: What a run imports, some of it late.
MODULES = [
    "equivengine.runtime.engine",
    "equivengine.linearize.program",
    "torch.fx.experimental.symbolic_shapes",
    "PIL.PngImagePlugin",
]


def forks() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    return context


def config(out: Path, count: int = 8, seconds: float = 0.01, probe: str = "measure", **options: object) -> RunConfig:
    """The probe ``measure`` (or ``together``, in batches of 4) on noise."""
    settings = {"seconds": seconds} if probe == "measure" else {}
    images = [f"noise:{count}?size=8&mode=L"]
    given = {"probes": [{"name": probe, "set": settings}], "models": ["toy"], "images": images, "device": "cpu"}
    return validated({**given, "out": str(out), **options})


def carry_out(given: RunConfig, log: Path | None = None, resumed: bool = False) -> None:
    """Run or resume; each unit that is reported as published is a line of ``log``, written before anything else."""
    import torch

    from equivengine.runtime import engine

    torch.set_num_threads(1)
    promises = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if log is not None else None

    def on_done(unit, outcome):
        if promises is not None and outcome.outcome == "published":
            os.write(promises, f"{unit.unit_id}\n".encode())

    if resumed and (Path(given.out) / "plan.json").exists():
        engine.resume(given.out, device="cpu", on_done=on_done)
    else:
        engine.execute(given, on_done=on_done)


def consolidate_for_ever(out: str) -> None:
    from equivengine.store import RunDirectory

    run = RunDirectory.open(out)
    while True:
        run.consolidate()


def publish_for_ever(out: str, log: Path) -> None:
    """Publish results of the plan's units, over and over under new run directories beside it, as fast as it goes."""
    from equivengine.store import RunDirectory, open_run

    with open_run(out) as opened:
        results = [(record.unit, record.result()) for record in opened.units()]
        plan, digest = opened.plan, opened.plan_digest
    promises = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in range(10**6):
        run = RunDirectory.create_or_open(f"{out}-{os.getpid()}-{number}", plan, digest)
        for unit, result in results:
            run.publish(unit, result, {})
            os.write(promises, f"{run.path} {unit.unit_id}\n".encode())
        run.consolidate()


def kill_after(process: multiprocessing.Process, seconds: float) -> bool:
    """SIGKILL a process unless it has ended by then; whether it was killed."""
    process.join(seconds)
    if process.exitcode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    return process.exitcode == -signal.SIGKILL


def wait_for(condition, process: multiprocessing.Process | None = None, seconds: float = 30) -> None:
    """Wait until ``condition()`` holds; a process that it waits for must not end before."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        assert process is None or process.exitcode is None, "the process ended early"
        time.sleep(0.002)
