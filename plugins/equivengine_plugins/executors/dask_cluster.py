"""A Dask cluster for one run: start or join it, keep every slot at one batch, and leave nothing behind."""

from __future__ import annotations

import contextlib
import logging
import pickle
import queue
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.executors import dask_worker
from equivengine_plugins.executors.attempts import Attempts, Batch, ids_of
from equivengine_plugins.executors.unit_process import Death

if TYPE_CHECKING:
    from distributed import Client, Future

    from equivengine_plugins.executors.dask import DaskParams

#: How often the number of workers is asked for, seconds.
LOOK = 2.0

Found = tuple[eqv.UnitOutcome, ...] | Death | None
OnDone = Callable[[Batch, tuple[eqv.UnitOutcome, ...]], None]


class Cluster:
    """A cluster that was started or joined.

    Args:
        client: Its client.
        address: What messages call it.
        environments: Environment variables of each worker, where it was started for this run.
        threads: Threads of a process of a standing one.
        patience: How long it may be without any worker, seconds.
    """

    def __init__(
        self,
        client: Client,
        address: str,
        environments: Sequence[dict[str, str]] = (),
        threads: int | None = None,
        patience: float = 60.0,
    ) -> None:
        self._client = client
        self._address = address
        self._environments = list(environments)
        self._threads = threads
        self._patience = patience
        self._command = secrets.token_hex(8)
        self._slots, self._looked, self._seen = 0, -LOOK, time.monotonic()

    def carry_out(self, work: eqv.Work, batches: Iterable[Batch], on_done: OnDone) -> None:
        """Run every batch; as `equivengine.Executor.map`.

        Raises:
            EngineError: If a worker refuses to work, nothing can be kept, or the cluster goes away.
        """
        attempts: Attempts[Batch] = Attempts(batches)
        packed = pickle.dumps(work)
        running: dict[str, tuple[Future, Batch]] = {}
        ready: queue.Queue[Future] = queue.Queue()
        try:
            while True:
                while len(running) < self._count() and (batch := attempts.next()) is not None:
                    future = self._client.submit(
                        dask_worker.run,
                        self._command,
                        packed,
                        ids_of(batch),
                        self._environments,
                        self._threads,
                        pure=False,
                    )
                    running[future.key] = (future, batch)
                    future.add_done_callback(ready.put)
                if attempts.over:
                    return
                with contextlib.suppress(queue.Empty):
                    future = ready.get(timeout=LOOK)
                    _, batch = running.pop(future.key)
                    self._settle(work, attempts, batch, self._result(future), on_done)
        finally:
            self._client.cancel([future for future, _ in running.values()])

    def close(self) -> None:
        """End all processes of units."""
        with contextlib.suppress(Exception):  # a cluster that is gone has ended its processes already
            self._client.run(dask_worker.end, self._command)

    def introduce(self) -> None:
        """Hear from each worker whether it can work at all.

        Raises:
            PluginError: Naming the first that cannot.
        """
        for address, answer in self._client.run(dask_worker.greet, on_error="return").items():
            if isinstance(answer, BaseException):
                raise eqv.PluginError(
                    f"the worker {address} of the Dask cluster cannot carry out units",
                    expected=f"equivengine {eqv.__version__}, as here",
                    got=f"{type(answer).__name__}: {answer}",
                    hint="install the same equivengine and plugins on all workers",
                )

    def _settle(self, work: eqv.Work, attempts: Attempts[Batch], batch: Batch, found: Found, on_done: OnDone) -> None:
        if found is None:
            raise KeyboardInterrupt
        if not isinstance(found, Death):
            attempts.finished()
            on_done(batch, found)
            return
        why = attempts.died(batch, found)
        if why is not None:
            on_done(batch, work.record_failure(batch, why, found.kind))

    def _result(self, future: Future) -> Found:
        from distributed import KilledWorker

        if future.status in ("lost", "cancelled"):
            raise self._gone()
        try:
            return future.result()
        except KilledWorker:
            return Death(f"was lost with its Dask worker, of {self._address}; the worker's log says why", "WorkerLost")
        except (eqv.EngineError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise eqv.PluginError(
                f"a worker of the Dask cluster {self._address} cannot carry out units",
                expected="workers with the same equivengine and plugins as here",
                got=f"{type(error).__name__}: {error}",
                hint="look into the worker's log",
            ) from error

    def _count(self) -> int:
        """Batches that may run at once; what joins or leaves meanwhile counts."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return self._slots
        self._looked = now
        try:
            self._slots = sum(self._client.ncores().values())
        except Exception:
            raise self._gone() from None
        if self._slots:
            self._seen = now
        elif now - self._seen > self._patience:
            raise eqv.EngineError(
                f"the Dask cluster {self._address} has no workers",
                expected=f"one at least, within {self._patience:g} s",
                got="none",
                hint="start some (`dask worker`) and resume the run",
            )
        return self._slots

    def _gone(self) -> eqv.EngineError:
        return eqv.EngineError(
            f"the Dask scheduler {self._address} went away",
            hint="what was published stays: resume the run, there or with another --executor",
        )


@contextlib.contextmanager
def local(count: int, environments: Sequence[dict[str, str]]) -> Iterator[Cluster]:
    """Start a cluster in this process. It opens no port at all: scheduler and workers talk through memory.

    Args:
        count: Workers; each hands its batches to one process.
        environments: Environment variables of these processes.
    """
    from distributed import Client, Scheduler, SpecCluster, Worker

    class LocalScheduler(Scheduler):
        def start_http_server(self, *arguments: object, **options: object) -> None:
            """None: even without a dashboard it would listen beyond loopback."""

    class LocalWorker(Worker):
        start_http_server = LocalScheduler.start_http_server

    inside: dict[str, Any] = {"protocol": "inproc://", "dashboard": False}
    with (
        _hushed(),
        tempfile.TemporaryDirectory(prefix="equivengine-dask-") as scratch,
        SpecCluster(
            scheduler={"cls": LocalScheduler, "options": inside},
            workers={
                place: {
                    "cls": LocalWorker,
                    "options": {**inside, "nthreads": 1, "memory_limit": 0, "local_directory": scratch},
                }
                for place in range(count)
            },
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
        contextlib.closing(Cluster(client, "on this machine", environments)) as started,
    ):
        yield started


@contextlib.contextmanager
def standing(params: DaskParams) -> Iterator[Cluster]:
    """Join a cluster.

    Raises:
        EngineError: If it cannot be joined, has no workers, or a worker has no equivengine.
    """
    with _hushed(), _client(params) as client:
        try:
            client.wait_for_workers(1, timeout=params.patience)
        except TimeoutError:
            raise eqv.EngineError(
                f"the Dask cluster {params.scheduler} has no workers",
                expected=f"one at least, within {params.patience:g} s",
                got="none",
                hint="start some (`dask worker`)",
            ) from None
        joined = Cluster(client, str(params.scheduler), threads=params.threads, patience=params.patience)
        with contextlib.closing(joined):
            joined.introduce()
            yield joined


def _client(params: DaskParams) -> Client:
    from distributed import Client
    from distributed.security import Security

    address = str(params.scheduler)
    encrypted = address.startswith("tls:")
    files = {"tls_ca_file": params.tls_ca, "tls_client_cert": params.tls_cert, "tls_client_key": params.tls_key}
    given = {name: path for name, path in files.items() if path is not None}
    try:
        security = Security(require_encryption=encrypted, **given)
        return Client(address, security=security, timeout=params.patience, set_as_default=False)
    except Exception as error:  # a wrong certificate shows as whatever layer noticed it
        raise eqv.EngineError(
            f"the Dask scheduler at {address} does not let us in",
            expected="a scheduler of Dask" + (", and certificates that both sides trust" if encrypted else ""),
            got=f"{type(error).__name__}: {error}",
            hint=("give" if encrypted else f"if it has TLS, say {address.replace('tcp:', 'tls:')} with")
            + " --set-executor tls_ca=FILE, tls_cert=FILE and tls_key=FILE as the cluster's owner says",
        ) from error


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep what Dask reports of its own comings and goings off the terminal, unless -v asks for it."""
    said = logging.getLogger("equivengine").isEnabledFor(logging.INFO)
    names = () if said else ("distributed", "distributed.client", "tornado", "asyncio")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
