"""A standing Dask cluster behind TLS, as docs/executors.md sets one up, and workers that lack equivengine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time

import deeds
import pytest

import equivengine as eqv
from equivengine_plugins.executors.dask import Dask, DaskParams

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, to make certificates"),
]


def certificate(folder, name):
    """A certificate that is its own authority, as (certificate, key)."""
    files = folder / f"{name}.pem", folder / f"{name}.key"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=cluster -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return tuple(map(str, files))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler with TLS, its certificate and key, and a function that starts a worker."""
    folder = tmp_path_factory.mktemp("tls")
    pem, key = certificate(folder, "cluster")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"tls://127.0.0.1:{port}"
    tls = ["--tls-ca-file", pem, "--tls-cert", pem, "--tls-key", key, "--no-dashboard", "--host", "tls://127.0.0.1"]
    started = []

    def start(*arguments, path=()):
        paths = os.pathsep.join([*map(str, path), *filter(None, sys.path)])
        with open(folder / f"log-{len(started)}", "w") as log:
            command = [sys.executable, "-m", "dask", *arguments, *tls]
            environment = {**os.environ, "PYTHONPATH": paths}
            started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
        return started[-1]

    def worker(**options):
        return start("worker", address, "--nthreads", "1", "--no-nanny", **options)

    start("scheduler", "--port", str(port))
    deadline = time.monotonic() + 100
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        assert time.monotonic() < deadline, "the scheduler did not start"
        time.sleep(0.1)
    yield address, (pem, key), worker, folder
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def executor(cluster):
    address, (pem, key), _, _ = cluster

    def make(**params):
        given = {"scheduler": address, "tls_ca": pem, "tls_cert": pem, "tls_key": key, "patience": 30}
        return Dask(DaskParams(**{**given, **params}))

    return make


def test_a_cluster_without_workers_is_one_error(work, executor):
    batches = deeds.batches("fine")
    with pytest.raises(eqv.EngineError, match="has no workers"):
        executor(patience=3).map(work(batches), batches, on_done=print)


def test_a_worker_that_lacks_equivengine_is_named(work, executor, cluster, tmp_path):
    _, _, start_worker, _ = cluster
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['equivengine_plugins'] = None\n")
    worker = start_worker(path=[tmp_path])
    batches = deeds.batches("fine")
    with pytest.raises(
        eqv.PluginError, match=r"the worker tls://127\.0\.0\.1:\d+ of the Dask cluster cannot"
    ) as refused:
        executor().map(work(batches), batches, on_done=print)
    assert "equivengine_plugins" in refused.value.got
    worker.kill()
    worker.wait()


def test_certificates_open_it_and_others_do_not(work, carry_out, executor, cluster):
    _, _, start_worker, folder = cluster
    start_worker()
    found, _ = carry_out(executor(), "fine", "fine")
    assert [got[0].outcome for _, got in found] == ["published"] * 2
    pem, key = certificate(folder, "stranger")
    batches = deeds.batches("fine")
    for wrong in ({"tls_ca": pem, "tls_cert": pem, "tls_key": key}, dict.fromkeys(("tls_ca", "tls_cert", "tls_key"))):
        start = time.monotonic()
        with pytest.raises(eqv.EngineError, match="does not let us in") as refused:
            executor(**wrong, patience=3).map(work(batches), batches, on_done=print)
        assert "tls_ca=FILE" in refused.value.hint
        assert time.monotonic() - start < 20
    with pytest.raises(eqv.EngineError, match="does not let us in"):
        executor(tls_ca="/nowhere/ca.pem", patience=3).map(work(batches), batches, on_done=print)
    address = executor().params.scheduler.replace("tls:", "tcp:")
    plain = Dask(DaskParams(scheduler=address, patience=3))
    with pytest.raises(eqv.EngineError, match="does not let us in"):
        plain.map(work(batches), batches, on_done=print)
