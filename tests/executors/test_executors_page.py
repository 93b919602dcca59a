"""docs/executors.md: its blocks run as they stand, one after the other; those for clusters, on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_here

import equivengine as eqv

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "executors.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- run ?(\S*) -->\n```(\w+)\n(.*?)```", PAGE, re.DOTALL)
#: Blocks for a Dask cluster, which are run in one shell, and for Slurm.
*DASK, SLURM = re.findall(r"^```sh\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
#: How the page says that a line is typed on another machine, and goes on there.
ELSEWHERE = re.compile(r" +# (on the machine|one for each GPU).*")


def on_this_machine(text: str, port: int) -> str:
    """A block with this machine in place of the one that it names, a port that is free, and a directory that exists."""
    replaced = re.sub(r"\bhead\b(?=[: ]|$)", "localhost", text, flags=re.MULTILINE)
    return replaced.replace("8786", str(port)).replace("/shared/", "")


@pytest.fixture
def environment():
    found = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    found.pop("OMP_NUM_THREADS", None)
    return found


@pytest.fixture
def sweep(tmp_path):
    """A directory with the run file that the page shows."""
    for name, language, text in BLOCKS:
        if language == "toml":
            (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_every_block_is_run_by_one_of_these_tests():
    assert len(BLOCKS) == 7
    assert len(re.findall(r"^```\w+$", PAGE, re.MULTILINE)) == 7 + len(DASK) + 1
    assert len(DASK) == 2
    assert all("tls://head:8786" in text for text in DASK)
    assert len([line for line in DASK[0].splitlines() if ELSEWHERE.search(line)]) == 2
    assert "--executor slurm" in SLURM


def test_every_parameter_that_is_named_exists():
    from equivengine_plugins.executors.dask import DaskParams
    from equivengine_plugins.executors.slurm import SlurmParams

    known = {*DaskParams.model_fields, *SlurmParams.model_fields}
    named = set(re.findall(r"--set-executor ([a-z_]+)=", PAGE))
    assert len(named) > 8
    assert named <= known


def test_times_and_counts_that_the_page_states_are_those_of_the_code():
    import dask
    import distributed  # noqa: F401 - brings the settings of its scheduler

    from equivengine_plugins.executors import attempts, slurm_array, unit_worker
    from equivengine_plugins.executors.dask import CORES_OF_A_GROUP, DaskParams

    stated = {
        "15 minutes of waiting": unit_worker.IDLE_SECONDS == 15 * 60,
        "is not back within five minutes": slurm_array._REQUEUING == 5 * 60,
        "(90 seconds, or a quarter of it if that is less)": slurm_array._WARNING == 90,
        "`patience` (5 s)": DaskParams().patience == 5,
        "one for each four cores": CORES_OF_A_GROUP == 4,
        "to the same batch three times": attempts.LIMIT == 3,
        "one death for each four workers": dask.config.get("distributed.scheduler.allowed-failures") == 3,
    }
    page = " ".join(PAGE.split())
    assert {text: text in page for text in stated} == dict.fromkeys(stated, True)
    assert stated == dict.fromkeys(stated, True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_blocks_run(sweep, environment):
    for _, language, text in BLOCKS:
        if language == "toml":
            continue
        commands = [line.removeprefix("$ ") for line in text.splitlines()] if language == "console" else [None]
        for command in commands:
            words = ["bash", "-c", command] if command is not None else [sys.executable, "-c", text]
            done = subprocess.run(words, cwd=sweep, env=environment, capture_output=True, text=True, timeout=250)
            assert done.returncode == 0, done.stdout + done.stderr
    assert "'name': 'dask'" in done.stdout
    assert "'threads': 1, 'workers': 2" in done.stdout
    assert sorted(path.name for path in sweep.iterdir()) == ["runs", "sweep.toml"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("openssl") is None, reason="the page makes a certificate with openssl")
def test_the_blocks_for_a_standing_cluster_run_with_scheduler_and_worker_on_this_machine(sweep, environment):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = on_this_machine("".join(ELSEWHERE.sub(" &", text) for text in DASK), port)
    with open(sweep / "said", "w") as said:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=sweep, env=environment, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(timeout=500)
        finally:
            end(shell)  # scheduler and worker stay, as they do on their machines
    assert code == 0, (sweep / "said").read_text()
    executor = executor_of_the_sweep(sweep)
    assert executor["name"] == "dask"
    assert executor["set"]["scheduler"] == f"tls://localhost:{port}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_block_for_a_slurm_array_runs_where_its_commands_are(sweep, environment, tmp_path_factory):
    slurm = tmp_path_factory.mktemp("slurm") / "bin"
    slurm_here.install(slurm)
    environment["PATH"] = f"{slurm}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", on_this_machine(SLURM, 0)],
        cwd=sweep, env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert executor_of_the_sweep(sweep)["name"] == "slurm"
    (submitted,) = slurm_here.submissions(slurm)
    given = slurm_here.options(submitted)
    assert given["array"] == "0-3%4"  # four images: no more tasks than batches
    expected = {"gpus-per-node": "1", "time": "120", "partition": "gpu", "account": "geometry"}
    assert expected.items() <= given.items()


def end(shell):
    """End a shell and what it has started in the background, which tidies up if it can."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 30
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, number)
            while time.monotonic() < deadline:
                shell.poll()
                os.killpg(shell.pid, 0)
                time.sleep(0.1)


def executor_of_the_sweep(directory):
    """What carried out the run of the page's run file, all of whose units are there."""
    with eqv.open_run(directory / "runs" / "sweep") as run:
        records = list(run.units("spectrum"))
        assert [record.status for record in records] == ["ok"] * 4
        return records[0].provenance["executor"]
