"""Commands of equivengine that a benchmark starts, waits for, interrupts, and does not leave behind."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: A command that takes longer is taken to hang, seconds.
PATIENCE = 900.0

ENGINE = (sys.executable, "-m", "equivengine")

_started: list[subprocess.Popen[str]] = []


def prepare() -> None:
    """To be called once, before the first command: none outlives the benchmark, and each heeds an interruption.

    A shell has what it starts in the background ignore SIGINT, and commands inherit that; not so where it is caught.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    atexit.register(_end_all)


def start(*arguments: object, program: Sequence[str] = ENGINE) -> subprocess.Popen[str]:
    """Start a command that prints JSON.

    Args:
        arguments: Its words.
        program: What carries it out, if it is not `python -m equivengine`.
    """
    words = [*program, *map(str, arguments), "--json", "--progress", "none"]
    _started.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    return _started[-1]


def finished(process: subprocess.Popen[str], meanwhile: Callable[[], None] | None = None) -> dict[str, Any]:
    """Wait for a command that is to end well; what it has printed.

    Args:
        process: The command.
        meanwhile: Called about every 50 ms while it runs.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            out, said = process.communicate(timeout=PATIENCE if meanwhile is None else 0.05)
        except subprocess.TimeoutExpired:  # what it has printed so far is kept for the next call
            if meanwhile is not None:
                meanwhile()
            continue
        if process.returncode:
            sys.exit(f"{_line(process)} ended with {process.returncode}:\n{said}")
        return json.loads(out)
    sys.exit(f"{_line(process)} took more than {PATIENCE:g} s")


def interrupt(process: subprocess.Popen[str], when: Callable[[], bool]) -> int:
    """Ctrl-C once a condition holds; the exit code."""
    while process.poll() is None and not when():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    return process.returncode


def _line(process: subprocess.Popen[str]) -> str:
    assert isinstance(process.args, list)
    return " ".join(map(os.fspath, process.args))


def _end_all() -> None:
    for process in _started:
        if process.poll() is None:
            process.terminate()
            process.wait()


def published(run: Path) -> int:
    """How many units a run directory holds."""
    return len(list(run.glob("shards/*/*.h5")))
