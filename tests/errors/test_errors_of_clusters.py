"""Standing Dask clusters that cannot carry out a run: their schedulers listen on loopback, in this process."""

from __future__ import annotations

import contextlib
import socket
import threading

import distributed
import pytest

WORDS = ("probe", "--plugin", "measure", "--model", "toy", "--images", "noise:2?size=8&mode=L", "--out", "run")


class Scheduler(distributed.Scheduler):
    """One that listens on loopback only: its page would be open to other machines."""

    def start_http_server(self, *arguments, **options):
        pass


class Worker(distributed.Worker):
    """The same of a worker."""

    start_http_server = Scheduler.start_http_server


class Lacking(Worker):
    """A worker whose environment lacks the plugins: what is sent to it cannot be unpickled there."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.handlers["run"] = self.cannot_unpickle

    async def cannot_unpickle(self, comm, **message):
        return distributed.core.error_message(ModuleNotFoundError("No module named 'equivengine_plugins'"))


@pytest.fixture
def start():
    """Start a scheduler with workers of a class; returns its address."""
    with contextlib.ExitStack() as started:

        def cluster(*workers):
            options = {"host": "127.0.0.1", "dashboard": False}
            each = {"host": "127.0.0.1", "nthreads": 1, "memory_limit": 0, "dashboard": False}
            found = distributed.SpecCluster(
                scheduler={"cls": Scheduler, "options": options},
                workers={place: {"cls": worker, "options": each} for place, worker in enumerate(workers)},
                silence_logs=50,
            )
            return started.enter_context(found).scheduler_address

        yield cluster


@pytest.fixture
def join(refused):
    """Try to measure something on a cluster, which takes so long at most."""

    def run(address, patience):
        parameters = (f"scheduler={address}", f"patience={patience}")
        settings = [word for parameter in parameters for word in ("--set-executor", parameter)]
        return refused(*WORDS, "--executor", "dask", *settings, code=1, keeps=("run",))

    return run


def test_a_cluster_without_workers(start, join):
    said = join(start(), 0.2)
    assert "has no workers" in said
    assert "start some (`dask worker`)" in said


def test_a_worker_that_lacks_the_plugins(start, join):
    said = join(start(Worker, Lacking), 10)
    assert "of the Dask cluster cannot carry out units" in said
    assert "ModuleNotFoundError: No module named 'equivengine_plugins'" in said


def test_a_scheduler_that_hangs_up(join):
    """As one with TLS does where a client comes without."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        said = join(f"tcp://127.0.0.1:{server.getsockname()[1]}", 0.5)
        server.shutdown(socket.SHUT_RDWR)
    assert "does not let us in" in said
    assert "if it has TLS, say tls://127.0.0.1:" in said
