"""Whether executors give the same bits, what they gain, and what they survive: `python bench/executors.py`, minutes.

- speed: 64 images of the bundled digits (probe `ldlc` unless `--probe` names another), serial and on 2 Dask workers by
  turns, each with one thread of torch, `--rounds` times. `speed_up` is the median ratio of wall times of carrying out a
  plan, start-up of worker processes and consolidation included; `speed_up_of_commands` that of whole commands.
- kills: the same units on 2 Dask workers, of whose processes one is killed with SIGKILL every `--every` seconds.
- across: the same units, interrupted (SIGINT) serially after a third, on Dask after another third, and finished on
  Slurm's array (submitit's local cluster).
- empty: batches that do nothing, through each executor: what carrying them costs.

Each run must have the content of the serial one, bit for bit; else the command exits with 1.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import importlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import torch

import equivengine as eqv
from equivengine.contracts.unit import SampleRef
from equivengine.runtime.registry import from_environment
from equivengine.store import content_digest, open_run

HERE = Path(__file__).parent
SERIAL = ("--executor", "serial", "--set-executor", "threads=1")
DASK = ("--executor", "dask", "--set-executor", "workers=2", "--set-executor", "threads=1")
SLURM = ("--executor", "slurm", *[word for setting in ("cluster=local", "tasks=2", "threads=1", "look=0.5")
                                 for word in ("--set-executor", setting)])  # fmt: skip


#: Commands that were started.
STARTED: list[subprocess.Popen[str]] = []


def command(*arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "equivengine", *map(str, arguments), "--json", "--progress", "none"]
    STARTED.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    return STARTED[-1]


def end_all() -> None:
    """No command outlives the benchmark."""
    for process in STARTED:
        if process.poll() is None:
            process.terminate()
            process.wait()


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, said = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(map(str, process.args))} ended with {process.returncode}:\n{said}")  # type: ignore[arg-type]  # Popen says that they are any
    return json.loads(out)


def digest(path: Path) -> str:
    with open_run(path / "run.h5") as run:
        return content_digest(run)


def published(path: Path) -> int:
    return len(list(path.glob("shards/*/*.h5")))


def speed(folder: Path, probe: list[object], rounds: int) -> dict[str, Any]:
    """Both executors by turns; the machine's other work hits both alike."""
    times: dict[str, list[float]] = {"serial": [], "dask": [], "serial command": [], "dask command": []}
    contents = set()
    for number in range(rounds):
        for name, where in (("serial", SERIAL), ("dask", DASK)):
            out = folder / f"{name}-{number}"
            start = time.perf_counter()
            times[name].append(finished(command(*probe, "--out", out, *where))["seconds"])
            times[f"{name} command"].append(time.perf_counter() - start)
            contents.add(digest(out))
            print(f"{name}: {times[name][-1]:.1f} s", flush=True)
    ratios = [serial / dask for serial, dask in zip(times["serial"], times["dask"], strict=True)]
    whole = [serial / dask for serial, dask in zip(times["serial command"], times["dask command"], strict=True)]
    return {
        "case": "speed",
        "workers": 2,
        "serial_s": times["serial"],
        "dask_s": times["dask"],
        "speed_up": statistics.median(ratios),
        "speed_up_of_commands": statistics.median(whole),
        "same_content": len(contents) == 1,
    }


def unit_processes(parent: int) -> list[int]:
    """Processes of units below a process."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes()
            above = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if above == parent and b"unit_worker" in words:
            found.append(int(place.name))
    return found


def kills(folder: Path, probe: list[object], every: float, wanted: str, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    out = folder / "killed"
    process = command(*probe, "--out", out, *DASK)
    count = 0
    while process.poll() is None:
        try:
            process.wait(every)
        except subprocess.TimeoutExpired:
            living = unit_processes(process.pid)
            if living and published(out):  # once it is under way
                os.kill(rng.choice(living), signal.SIGKILL)
                count += 1
    document = finished(process)
    return {
        "case": "kills",
        "workers": 2,
        "every_s": every,
        "kills": count,
        "seconds": document["seconds"],
        "outcomes": document["outcomes"],
        "temporaries_left": len(list(out.rglob("tmp.*"))),
        "same_content": digest(out) == wanted,
    }


def interrupt(process: subprocess.Popen[str], out: Path, count: int) -> int:
    """Ctrl-C once so many units are published; the exit code."""
    while published(out) < count and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate()
    return process.returncode


def across(folder: Path, probe: list[object], limit: int, wanted: str) -> dict[str, Any]:
    out = folder / "across"
    codes = [interrupt(command(*probe, "--out", out, *SERIAL), out, limit // 3)]
    first = published(out)
    codes.append(interrupt(command("resume", out, *DASK), out, 2 * limit // 3))
    second = published(out)
    document = finished(command("resume", out, *SLURM))
    return {
        "case": "across",
        "executors": ["serial", "dask", "slurm"],
        "units": [first, second - first, document["outcomes"].get("published", 0)],
        "exit_codes": [*codes, 0],
        "temporaries_left": len(list(out.rglob("tmp.*"))),
        "same_content": digest(out) == wanted,
    }


@dataclass(frozen=True)
class Nothing:
    """Work that does nothing."""

    directory: str
    working_directory: str = "/"
    device: str = "cpu"

    def check(self) -> None:
        pass

    def __call__(self, ids: tuple[str, ...]) -> tuple[eqv.UnitOutcome, ...]:
        return tuple(eqv.UnitOutcome(one if isinstance(one, str) else one.unit_id, "published") for one in ids)

    def record_failure(self, batch: Any, message: str, error_type: str) -> tuple[eqv.UnitOutcome, ...]:
        raise AssertionError(message)


def tally(done: Counter[str], batch: tuple[eqv.Unit, ...], outcomes: object) -> None:
    done[batch[0].unit_id] += 1


def empty(folder: Path, count: int) -> list[dict[str, Any]]:
    """Milliseconds for each batch of one unit that does nothing, start-up of processes measured apart."""
    registry = from_environment()
    rows = []
    units = [
        eqv.Unit("nothing", "1", "{}", "m", "0" * 64, (SampleRef("i", i, str(i), f"{i:064x}"),), 0, "fp32")
        for i in range(count)
    ]
    settings: dict[str, dict[str, Any]] = {
        "serial": {},
        "dask": {"workers": 2, "threads": 1},
        "slurm": {"cluster": "local", "tasks": 2, "threads": 1, "look": 0.1},
    }
    for name, given in settings.items():
        cls, _ = registry.executor(name)
        seconds = []
        for number in (1, count):
            start, processor = time.perf_counter(), time.process_time()
            done: Counter[str] = Counter()
            batches = [(unit,) for unit in units[:number]]
            # Imported anew: processes of units find no class of `__main__`.
            work = importlib.import_module("executors").Nothing(str(folder))
            count_one = functools.partial(tally, done)
            cls(cls.Params(**given)).map(work, batches, on_done=count_one)
            seconds.append(time.perf_counter() - start)
            assert done.total() == len(done) == number
        row = {"case": "empty", "executor": name, "batches": count, "start_up_s": seconds[0]}
        row["ms_per_batch"] = 1e3 * max(0.0, seconds[1] - seconds[0]) / (count - 1)
        row["parent_cpu_ms_per_batch"] = 1e3 * (time.process_time() - processor) / count
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", default="ldlc", help="(default %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter of the probe")
    parser.add_argument("--limit", type=int, default=64, help="images (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of both executors (default %(default)s)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between kills (default %(default)s)")
    parser.add_argument("--empty", type=int, default=2000, help="batches that do nothing (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    options = parser.parse_args()

    settings = [word for one in options.set for word in ("--set", one)]
    probe = ["probe", "--plugin", options.probe, "--images", "digits", "--limit", options.limit, *settings]
    document = machine.document(
        "executors", torch.device("cpu"), probe=options.probe, set=options.set, units=options.limit, seed=options.seed
    )
    rows = document["results"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    atexit.register(end_all)
    before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *before])  # processes of units find `Nothing`
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows.append(speed(folder, probe, options.rounds))
        wanted = digest(folder / "serial-0")
        rows.append(kills(folder, probe, options.every, wanted, options.seed))
        rows.append(across(folder, probe, options.limit, wanted))
        if options.empty:
            rows += empty(folder, options.empty)
    for row in rows:
        print("; ".join(f"{key} {value}" for key, value in row.items()))
    print(machine.write(options.out, machine.file_name("executors", document["name"]), document))
    wrong = [row for row in rows if not held(row)]
    if wrong:
        sys.exit(f"not as promised: {wrong}")


def held(row: dict[str, Any]) -> bool:
    """Whether a case is what was promised."""
    if not row.get("same_content", True) or row.get("temporaries_left", 0):
        return False
    if row["case"] == "kills":
        return row["kills"] > 0 and not row["outcomes"].get("failed")
    return row["case"] != "across" or row["exit_codes"] == [130, 130, 0]


if __name__ == "__main__":
    main()
