from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from fault_cases import carry_out, config, forks

from equivengine import open_run
from equivengine.store import content_digest, inspect_run


@pytest.fixture(autouse=True)
def plugins(toys, monkeypatch):
    """The toy plugin, one thread as in the children, and no word of this test's in their logs."""
    monkeypatch.setenv("EQUIVENGINE_PLUGINS", "toys,noise,serial")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def start():
    """Start a function in a process of its own; ended with the test."""
    started = []

    def run(function, *arguments):
        process = forks().Process(target=function, args=arguments)
        process.start()
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.join()


def content(run: Path) -> str:
    """The content of a run directory, which its run.h5 must hold too."""
    with open_run(run) as opened, open_run(run / "run.h5") as file:
        found = content_digest(opened)
        assert content_digest(file) == found
        return found


@pytest.fixture
def undisturbed(tmp_path):
    """The content of a run that nothing disturbed."""

    def run(**options):
        carry_out(config(tmp_path / "undisturbed", **options))
        return content(tmp_path / "undisturbed")

    return run


@pytest.fixture
def recovered(out):
    """Resume a disturbed run once, check that nothing is left to do or to see of the disturbance; its content."""

    def run(**options):
        carry_out(config(out, **options), resumed=True)
        found = inspect_run(out)
        assert (found.findings, found.missing, found.failed, found.outdated) == ([], [], [], False)
        assert not list(out.rglob("tmp.*"))
        return content(out)

    return run


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system in memory of so many bytes; skips where that is not permitted."""
    mounted = []

    def mount(size):
        place = tmp_path / "disk"
        place.mkdir(exist_ok=True)
        try:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], capture_output=True, check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no file system can be mounted here: {error}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", place], check=True)
