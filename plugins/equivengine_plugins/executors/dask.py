"""Units on a Dask cluster: one that is started here, or a standing one."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import Field

import equivengine as eqv

if TYPE_CHECKING:
    from equivengine_plugins.executors.dask_cluster import Cluster

EQUIVENGINE_API = (1, 0)

Batch = tuple[eqv.Unit, ...]

#: On CPUs a process of units gets so many cores by default, where there are enough for two processes at least.
CORES_OF_A_GROUP = 4


class DaskParams(eqv.Params):
    """What ``--set-executor`` takes."""

    workers: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Processes on this machine; one for each GPU, or for each 4 cores and at least two, when unset.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Threads of torch in each process; OMP_NUM_THREADS, or an equal share of the cores, when unset.",
    )
    scheduler: str | None = Field(
        None,
        description="Address of a standing scheduler, such as tls://host:8786; a cluster on this machine when unset.",
    )
    tls_ca: str | None = Field(
        None, description="Certificates of authorities for tls://; a file. As Dask is set up when unset."
    )
    tls_cert: str | None = Field(None, description="Certificate of this client for tls://; a file.")
    tls_key: str | None = Field(None, description="Private key of this client for tls://; a file.")
    allow_plain_tcp: bool = Field(
        False,
        description="Whether tcp:// to another machine is taken: whoever reaches that network can run code as you.",
    )
    patience: float = Field(5.0, gt=0, le=3600, description="How long a scheduler and its workers may take; seconds.")


class Dask(eqv.Executor):
    """Each slot of a worker runs one batch at a time, in a process of its own that keeps its encoder."""

    name = "dask"
    summary = "side by side on the GPUs or cores of this machine, or on a standing Dask cluster"
    Params = DaskParams
    params: DaskParams

    def __init__(self, params: DaskParams | None = None) -> None:
        super().__init__(params)
        self._kept = contextlib.ExitStack()
        self._cluster: Cluster | None = None

    def check(self, device: str) -> None:
        """Refuse what cannot work. See `equivengine.Executor.check`."""
        import dask  # noqa: F401 - whether they are there
        import distributed  # noqa: F401

        if self.params.scheduler is None:
            _only_here(self.params)
            if device.startswith("cuda:"):
                number = device.partition(":")[2]
                raise eqv.UsageError(
                    f"--device {device} names one GPU, and the executor 'dask' takes one process for each GPU",
                    expected="auto, cpu or cuda",
                    got=device,
                    hint=f"CUDA_VISIBLE_DEVICES={number} with --device cuda chooses GPUs",
                )
            return
        _only_elsewhere(self.params)
        _reachable(self.params.scheduler, self.params)

    def map(
        self,
        function: eqv.Work,
        batches: Iterable[Batch],
        *,
        on_done: Callable[[Batch, tuple[eqv.UnitOutcome, ...]], None],
    ) -> None:
        """See `equivengine.Executor.map`. The cluster and its processes stay for the next call."""
        try:
            if self._cluster is None:
                self._cluster = self._kept.enter_context(self._join(function.device))
            self._cluster.carry_out(function, batches, on_done)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the processes, and the cluster if it was started here."""
        self._cluster = None
        self._kept.close()

    def _join(self, device: str) -> contextlib.AbstractContextManager[Cluster]:
        from equivengine_plugins.executors import dask_cluster

        if self.params.scheduler is not None:
            return dask_cluster.standing(self.params)
        return dask_cluster.local(*places(self.params, device))


def places(params: DaskParams, device: str) -> tuple[int, list[dict[str, str]]]:
    """How many processes run on this machine, and the environment variables of each."""
    from equivengine_plugins.executors.unit_process import threads_environment, threads_of_each

    cores = len(os.sched_getaffinity(0))
    gpus = _gpus() if device in ("auto", "cuda") else []
    if params.workers is not None:
        count = params.workers
    elif gpus:
        count = len(gpus)
    elif params.threads:
        count = max(1, cores // params.threads)
    else:
        count = max(min(2, cores), cores // CORES_OF_A_GROUP)
    environment = threads_environment(threads_of_each(count, params.threads))
    pins = [{"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {} for place in range(count)]
    return count, [{**environment, **pin} for pin in pins]


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def _only_here(params: DaskParams) -> None:
    for name in ("tls_ca", "tls_cert", "tls_key", "allow_plain_tcp"):
        if getattr(params, name):
            raise eqv.UsageError(
                f"--set-executor {name} says how to reach a standing scheduler, and none is named",
                expected="--set-executor scheduler=tls://HOST:PORT beside it",
                hint=f"leave {name} out: a cluster on this machine opens no port",
            )


def _only_elsewhere(params: DaskParams) -> None:
    for name in ("workers",):
        if getattr(params, name) is not None:
            raise eqv.UsageError(
                f"--set-executor {name} is for a cluster on this machine; a standing one has the workers that it has",
                got=f"{name}={getattr(params, name)} and scheduler={params.scheduler}",
                hint="leave one of the two out",
            )


def _reachable(address: str, params: DaskParams) -> None:
    """Refuse an address that is none, that is not safe, or where nobody listens."""
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in ("tls", "tcp") or not host or not port:
        raise eqv.UsageError(
            "--set-executor scheduler is no address", expected="tls://HOST:PORT, or tcp:// on this machine", got=address
        )
    if parts.scheme == "tcp" and not (_is_loopback(host) or params.allow_plain_tcp):
        raise eqv.UsageError(
            f"the scheduler at {address} would be reached in plain text: who reaches that network can run code as you",
            expected="tls://HOST:PORT, or a scheduler on this machine",
            got=address,
            hint="start it with certificates (docs/executors.md), or say --set-executor allow_plain_tcp=true",
        )
    try:
        socket.create_connection((host, port), timeout=params.patience).close()
    except OSError as error:
        raise eqv.EngineError(
            f"no Dask scheduler answers at {address}",
            expected=f"a scheduler, within {params.patience:g} s",
            got=error.strerror or str(error) or type(error).__name__,
            hint="start it (`dask scheduler`), or leave --set-executor scheduler out for a cluster on this machine",
        ) from None


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@eqv.hookimpl
def equivengine_register_executors() -> list[type[eqv.Executor]]:
    """Register `Dask`."""
    return [Dask]
