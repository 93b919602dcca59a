"""Time and memory of the main job: `python bench/main_job.py`.

Runs `equivengine probe --plugin ldlc` with its defaults in processes of its own: cold (into an empty directory), then
repeated (into the same directory, where all is published), and `equivengine --help`. Wall time is the median over
rounds; memory is the largest resident set that the kernel saw. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Process:
    """One process from start to end: wall and processor time in seconds, largest resident set in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measure(arguments: list[str]) -> Process:
    """Run `equivengine ARGUMENTS` to its end.

    Raises:
        SystemExit: It did not exit with 0; its output is shown.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-m", "equivengine", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            output.seek(0)
            text = output.read().decode(errors="replace")
            sys.exit(f"`equivengine {' '.join(arguments)}` exited with {child.returncode}\n{text}")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB on Linux
    return Process(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def condense(runs: list[Process]) -> dict[str, Any]:
    """Medians and extremes of repeated runs."""
    seconds = [run.seconds for run in runs]
    return {
        "seconds": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "cpu_seconds": statistics.median(run.cpu_seconds for run in runs),
        "peak_bytes": max(run.peak_bytes for run in runs),
        "runs": len(runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run (default %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    parser.add_argument("probe_options", nargs="*", help="after `--`: options of the probe command; default: none")
    options = parser.parse_args()

    facts = machine.facts()
    runs: dict[str, list[Process]] = {"cold": [], "repeated": [], "help": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            job = ["probe", "--plugin", "ldlc", *options.probe_options, "--out", f"{folder}/run"]
            runs["cold"].append(measure(job))
            runs["repeated"].append(measure(job))
        runs["help"].append(measure(["--help"]))
    document = {
        "benchmark": "main_job",
        "command": " ".join(["equivengine", "probe", "--plugin", "ldlc", *options.probe_options]),
        "results": {name: condense(found) for name, found in runs.items()},
        "machine": facts,
    }
    gpus = [device["name"] for device in facts["doctor"].get("devices", []) if device["type"] == "cuda"]
    path = machine.write(options.out, machine.file_name("main_job", facts["cpu"], *gpus[:1]), document)

    print(f"{'':10}{'median s':>10}{'min':>8}{'max':>8}{'cpu s':>8}{'peak MB':>9}")
    for name, row in document["results"].items():
        print(
            f"{name:10}{row['seconds']:10.2f}{row['seconds_min']:8.2f}{row['seconds_max']:8.2f}"
            f"{row['cpu_seconds']:8.1f}{row['peak_bytes'] / 1e6:9.0f}"
        )
    print(f"{facts['cpu']}, {facts['cores']} cores, {options.rounds} rounds -> {path}")


if __name__ == "__main__":
    main()
