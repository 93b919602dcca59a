"""Units in a Slurm array. The store says what is done, so that a task that is requeued goes on where it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from typing import Literal

from pydantic import Field

import equivengine as eqv

EQUIVENGINE_API = (1, 0)

Batch = tuple[eqv.Unit, ...]


class SlurmParams(eqv.Params):
    """What ``--set-executor`` takes."""

    tasks: int = Field(1, ge=1, le=100_000, description="Tasks of the array; each takes a slice of the plan; count.")
    parallel: int | None = Field(None, ge=1, description="Tasks that may run at once; as many as fit when unset.")
    time: int = Field(60, ge=1, description="Time limit of a task, after which it is requeued and goes on; minutes.")
    timeouts: int = Field(20, ge=0, description="How often a task may run into its time limit; count.")
    cpus: int = Field(4, ge=1, description="Cores of a task; count.")
    threads: int | None = Field(None, ge=1, description="Threads of torch in a task; its cores when unset.")
    gpus: int = Field(0, ge=0, le=1, description="GPUs of a task; 0 or 1.")
    memory: int | None = Field(None, ge=1, description="Memory of a task; GB. As the partition has it when unset.")
    partition: str | None = Field(None, description="Partition; Slurm's default when unset.")
    account: str | None = Field(None, description="Account; Slurm's default when unset.")
    qos: str | None = Field(None, description="Quality of service; Slurm's default when unset.")
    constraint: str | None = Field(None, description="Features that nodes must have.")
    setup: list[str] = Field([], description="Shell commands before a task starts, such as module load; a JSON list.")
    cluster: Literal["slurm", "local"] = Field(
        "slurm", description="slurm, or local: tasks are processes of this machine, to try things out."
    )
    look: float = Field(5.0, gt=0, le=3600, description="Time between looks at what tasks have done; seconds.")


class Slurm(eqv.Executor):
    """Submits an array and waits for it. Each task runs its slice one batch after the other."""

    name = "slurm"
    summary = "a Slurm array; tasks that are preempted or out of time are requeued and go on"
    Params = SlurmParams
    fresh_processes = True
    params: SlurmParams

    def check(self, device: str) -> None:
        """Refuse what cannot work. See `equivengine.Executor.check`."""
        import submitit  # noqa: F401 - whether it is there

        if self.params.cluster == "slurm" and shutil.which("sbatch") is None:
            raise eqv.EngineError(
                "the executor 'slurm' needs Slurm, and there is no `sbatch` on this machine",
                expected="a login node of a Slurm cluster",
                got=f"PATH={os.environ.get('PATH', '')}",
                hint="start the command there; --set-executor cluster=local runs tasks here, to try things out",
            )

    def map(
        self,
        function: eqv.Work,
        batches: Iterable[Batch],
        *,
        on_done: Callable[[Batch, tuple[eqv.UnitOutcome, ...]], None],
    ) -> None:
        """See `equivengine.Executor.map`."""
        from equivengine_plugins.executors.slurm_array import Array

        Array(self.params, function).carry_out(list(batches), on_done)


@eqv.hookimpl
def equivengine_register_executors() -> list[type[eqv.Executor]]:
    """Register `Slurm`."""
    return [Slurm]
