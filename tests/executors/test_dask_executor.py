"""The Dask executor, with work that needs no torch: side by side, deaths, interruption, and clusters that stand."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import deeds
import pytest

import equivengine as eqv
from equivengine_plugins.executors import dask
from equivengine_plugins.executors.dask import Dask, DaskParams


@pytest.fixture
def executor():
    return lambda **params: Dask(DaskParams(**params))


def outcomes(found):
    return [(outcome.outcome, outcome.error_type) for _, batch in found for outcome in batch]


def test_two_processes_share_the_batches_and_leave_nothing_behind(carry_out, executor, tmp_path, monkeypatch, mark):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    found, noted = carry_out(executor(workers=2), *["wait 0.3"] * 8)
    assert outcomes(found) == [("published", "")] * 8
    assert len({entry["pid"] for entry in noted}) == 2
    assert {entry["threads"] for entry in noted} == {os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // 2))}
    assert set(tmp_path.iterdir()) == before
    assert mark() == []


def cores():
    return len(os.sched_getaffinity(0))


def listening():
    """Sockets of this process that wait for connections from anywhere, loopback included."""
    inodes = {
        fields[9]
        for name in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{name}").read_text().splitlines()[1:])
        if fields[3] == "0A"
    }
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            own.add(os.readlink(descriptor))
    return {inode for inode in inodes if f"socket:[{inode}]" in own}


def test_a_cluster_on_this_machine_opens_no_port(carry_out, executor, recwarn):
    before = listening()
    with socket.create_server(("127.0.0.1", 0)):
        assert len(listening() - before) == 1
    dask = executor(workers=2)
    carry_out(dask, "fine", close=False)
    assert listening() == before
    dask.close()
    assert not [warning for warning in recwarn if "8787" in str(warning.message)]


def test_processes_stay_for_the_next_call_until_it_is_closed_and_it_can_be_used_again(carry_out, executor, mark):
    dask = executor(workers=1)
    for _ in range(2):
        _, first = carry_out(dask, "fine", close=False)
        _, second = carry_out(dask, "fine")
        assert len({entry["pid"] for entry in second[len(first) - 1 :]}) == 1
        assert mark() == []
    assert len({entry["pid"] for entry in second}) == 2


def test_batches_are_neither_split_nor_merged(carry_out, executor):
    batches = [tuple(deeds.unit("fine", place) for place in range(3)), (deeds.unit("fine", 9),)]
    found, _ = carry_out(executor(workers=1), batches=batches)
    assert [batch for batch, _ in found] == batches
    assert [[outcome.unit_id for outcome in got] for _, got in found] == [
        [unit.unit_id for unit in batch] for batch in batches
    ]


def test_a_batch_that_kills_three_processes_fails_and_takes_no_other_with_it(carry_out, executor):
    names = ["fine", "signal SIGKILL", "fine", "once", "exit 5", "fine", "fine"]
    found, noted = carry_out(executor(workers=2), *names)
    failed = {batch[0].probe: got[0] for batch, got in found if got[0].outcome == "failed"}
    assert {name: one.error_type for name, one in failed.items()} == {"signal SIGKILL": "Signal", "exit 5": "Exit"}
    assert "died 3 times" in failed["exit 5"].message
    assert "exited with code 5" in failed["exit 5"].message
    assert outcomes(found).count(("published", "")) == 5
    begun = [entry["deed"] for entry in noted if "deed" in entry]
    assert {name: begun.count(name) for name in names} == {"fine": 4, "signal SIGKILL": 3, "once": 2, "exit 5": 3}
    assert [entry["error_type"] for entry in noted if "failed" in entry] in (["Signal", "Exit"], ["Exit", "Signal"])


def test_all_batches_end_while_processes_are_killed_again_and_again(carry_out, executor, tmp_path, mark):
    struck, over = [], threading.Event()

    def strike():
        """Kill the process of the batch that began last, unless that batch was struck before."""
        while not over.wait(0.3):
            for entry in deeds.log(tmp_path / "results")[-1:]:
                if entry["ids"] not in struck and entry["pid"] in mark():
                    os.kill(entry["pid"], signal.SIGKILL)
                    struck.append(entry["ids"])

    threading.Thread(target=strike, daemon=True).start()
    found, noted = carry_out(executor(workers=2), *["wait 0.5"] * 12)
    over.set()
    assert outcomes(found) == [("published", "")] * 12
    assert len(struck) >= 3
    assert len({entry["pid"] for entry in noted}) >= 4


def test_a_store_that_is_full_stops_the_run(carry_out, executor, mark):
    with pytest.raises(eqv.StoreError, match="no room"):
        carry_out(executor(workers=2), "wait 60", "full", "fine")
    assert mark() == []


def test_a_unit_that_asks_for_an_interruption_gets_one(carry_out, executor, mark):
    with pytest.raises(KeyboardInterrupt):
        carry_out(executor(workers=2), "wait 60", "interrupt")
    assert mark() == []


def test_ctrl_c_ends_processes_in_the_middle_of_their_batches(carry_out, executor, interrupt, mark):
    interrupt(2)
    with pytest.raises(KeyboardInterrupt):
        carry_out(executor(workers=2), "wait 1000", "wait 1000", "wait 1000")
    assert mark() == []


# -- how many, and where ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "params", "count", "threads"),
    [
        (1, {}, 1, 1),
        (2, {}, 2, 1),
        (3, {}, 2, 1),
        (16, {}, 4, 4),
        (18, {}, 4, 4),
        (16, {"workers": 3}, 3, 5),
        (16, {"threads": 8}, 2, 8),
        (2, {"threads": 8}, 1, 8),
        (16, {"workers": 2, "threads": 1}, 2, 1),
        (2, {"workers": 5}, 5, 1),
    ],
)
def test_cores_are_shared_out_and_not_oversubscribed(monkeypatch, cores, params, count, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found, environments = dask.places(DaskParams(**params), "cpu")
    assert found == count
    assert [environment["OMP_NUM_THREADS"] for environment in environments] == [str(threads)] * count
    assert all("CUDA_VISIBLE_DEVICES" not in environment for environment in environments)


def test_omp_num_threads_counts_and_threads_counts_more(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert dask.places(DaskParams(workers=1), "cpu")[1][0]["OMP_NUM_THREADS"] == "3"
    assert dask.places(DaskParams(workers=1, threads=2), "cpu")[1][0]["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(
    ("visible", "there", "device", "pinned"),
    [
        ("", 3, "auto", ["0", "1", "2"]),
        ("4,6", 2, "cuda", ["4", "6"]),
        ("GPU-8a,GPU-9b", 2, "auto", ["GPU-8a", "GPU-9b"]),
    ],
)
def test_each_gpu_gets_one_process(monkeypatch, visible, there, device, pinned):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    count, environments = dask.places(DaskParams(), device)
    assert count == there
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments] == pinned
    assert "CUDA_VISIBLE_DEVICES" not in dask.places(DaskParams(), "cpu")[1][0]
    twice = dask.places(DaskParams(workers=2 * there), device)[1]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in twice] == pinned * 2


# -- standing clusters ------------------------------------------------------------------------------------------------


def address_in(file):
    """The address in a scheduler's file, once it is there in whole."""
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        return json.loads(file.read_text())["address"]


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """A scheduler on this machine with two workers, as a user would start them."""
    folder = tmp_path_factory.mktemp("standing")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    started = []

    def start(*arguments):
        command = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        with open(folder / f"log-{len(started)}", "w") as log:
            started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))

    file = folder / "scheduler.json"
    start("scheduler", "--port", "0", "--scheduler-file", str(file))
    for _ in range(2):
        start(
            "worker",
            "--scheduler-file",
            str(file),
            *["--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard"],
        )
    deadline = time.monotonic() + 120
    while not (address := address_in(file)):
        assert time.monotonic() < deadline, "".join(log.read_text() for log in sorted(folder.glob("log-*")))
        time.sleep(0.1)
    yield address, started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_standing_cluster_carries_out_batches_and_keeps_nothing(carry_out, executor, standing):
    address, _ = standing
    found, noted = carry_out(executor(scheduler=address, patience=30), *["wait 0.2"] * 6, "signal SIGABRT")
    assert outcomes(found) == [("published", "")] * 6 + [("failed", "Signal")]
    assert {entry["threads"] for entry in noted if "threads" in entry} == {
        os.environ.get("OMP_NUM_THREADS") or str(cores())
    }
    time.sleep(0.2)
    assert not any(os.path.exists(f"/proc/{entry['pid']}") for entry in noted if "pid" in entry)
    again, _ = carry_out(executor(scheduler=address, patience=30), "fine")
    assert outcomes(again) == [("published", "")]


@pytest.mark.slow
def test_a_worker_of_a_standing_cluster_that_cannot_work_is_named(work, executor, standing):
    address, _ = standing
    batches = deeds.batches("fine")
    refusal = eqv.PluginError("the worker on here lacks the plugin 'x'", expected="x 1", got="no plugin")
    with pytest.raises(eqv.PluginError, match="lacks the plugin 'x'"):
        executor(scheduler=address, patience=30).map(work(batches, refusal=refusal), batches, on_done=print)


@pytest.mark.slow
def test_a_batch_outlives_the_dask_worker_that_it_was_on(carry_out, executor, standing):
    address, started = standing
    threading.Timer(1.5, started[1].kill).start()
    found, noted = carry_out(executor(scheduler=address, patience=30), *["wait 3"] * 2)
    assert outcomes(found) == [("published", "")] * 2
    assert len(noted) == 3


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "device", "says"),
    [
        pytest.param({}, "cuda:1", ["names one GPU", "CUDA_VISIBLE_DEVICES=1"], id="one GPU by number"),
        pytest.param(
            {"tls_ca": "ca.pem"},
            "cpu",
            ["tls_ca says how to reach a standing scheduler", "opens no port"],
            id="TLS without a scheduler",
        ),
        pytest.param(
            {"allow_plain_tcp": True}, "cpu", ["allow_plain_tcp says how to reach"], id="plain text without a scheduler"
        ),
        pytest.param(
            {"scheduler": "tls://127.0.0.1:1", "workers": 2},
            "cpu",
            ["workers is for a cluster on this machine"],
            id="workers of a standing cluster",
        ),
        pytest.param({"scheduler": "host"}, "cpu", ["is no address", "tls://HOST:PORT", "got: host"], id="no address"),
        pytest.param({"scheduler": "ucx://host:8786"}, "cpu", ["is no address"], id="unknown protocol"),
        pytest.param({"scheduler": "tls://host"}, "cpu", ["is no address"], id="no port"),
        pytest.param(
            {"scheduler": "tcp://192.0.2.1:8786"},
            "cpu",
            ["in plain text", "can run code as you", "allow_plain_tcp=true"],
            id="plain text off loopback",
        ),
        pytest.param(
            {"scheduler": "tcp://localhost.example.org:8786"},
            "cpu",
            ["in plain text"],
            id="plain text to a name like loopback",
        ),
        pytest.param(
            {"scheduler": "tcp://127.0.0.1:1"},
            "cpu",
            ["no Dask scheduler answers at tcp://127.0.0.1:1", "refused"],
            id="nobody answers",
        ),
        pytest.param(
            {"scheduler": "tls://[::1]:1"},
            "cpu",
            ["no Dask scheduler answers at tls://[::1]:1"],
            id="nobody answers by IPv6",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_planned(executor, params, device, says):
    start = time.monotonic()
    with pytest.raises(eqv.EngineError) as refused:
        executor(**params).check(device)
    for text in says:
        assert text in str(refused.value)
    assert time.monotonic() - start < 10


def test_plain_tcp_to_another_machine_goes_where_it_is_allowed_in_so_many_words(executor, monkeypatch):
    seen = []

    class Connected:
        def close(self):
            pass

    monkeypatch.setattr(
        socket, "create_connection", lambda place, timeout: seen.append((place, timeout)) or Connected()
    )
    executor(scheduler="tcp://192.0.2.1:8786", allow_plain_tcp=True, patience=3).check("cpu")
    executor(scheduler="tcp://127.0.0.2:8786").check("cpu")
    executor(scheduler="tls://192.0.2.1:8786").check("cpu")
    assert seen == [(("192.0.2.1", 8786), 3.0), (("127.0.0.2", 8786), 5.0), (("192.0.2.1", 8786), 5.0)]
