"""How long the main job takes where other programs want the cores: `python bench/waiting.py --out bench/results`.

`equivengine probe --plugin ldlc --limit 1`, on an otherwise idle machine and beside processes that compute without end,
one for each core. OpenMP's threads spin while they wait for one another: 300,000 times, as GCC's library does by
itself, or 1,000 times, with `GOMP_SPINCOUNT=1000`. The ways take turns, in processes of their own; seconds are medians
over rounds. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import machine

#: What GOMP_SPINCOUNT is in the environment; None: it is not there.
WAYS = {"by itself": None, "GOMP_SPINCOUNT=1000": "1000"}


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that compute without end."""
    children = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def seconds(spins: str | None) -> float:
    """Wall seconds of the job, with its start."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    if spins is not None:
        environment["GOMP_SPINCOUNT"] = spins
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable,
            "-m",
            "equivengine",
            "probe",
            "--plugin",
            "ldlc",
            "--limit",
            "1",
            "--out",
            f"{out}/run",
        ]
        start = time.perf_counter()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="(default %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for the JSON file")
    options = parser.parse_args()

    import torch

    document = machine.document("waiting", torch.device("cpu"))
    cores = len(os.sched_getaffinity(0))
    for others in (0, cores):
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        with busy(others):
            for _ in range(options.rounds):
                for way, spins in WAYS.items():
                    found[way].append(round(seconds(spins), 2))
        for way, each in found.items():
            row = {"way": way, "busy_processes": others, "seconds": statistics.median(each), "rounds": each}
            document["results"].append(row)
            print(
                f"{others} busy processes, {way}: {row['seconds']:.1f} s ({min(each):.1f} - {max(each):.1f})",
                flush=True,
            )
    if options.out:
        print(machine.write(options.out, machine.file_name("waiting", document["name"]), document))


if __name__ == "__main__":
    main()
