"""Whether executors give the same bits, what they gain, and what they survive: `python bench/executors.py`, minutes.

- speed: 64 images of the bundled digits (probe `ldlc` unless `--probe` names another), serial and on 2 Dask workers by
  turns, each with one thread of torch, `--rounds` times. `speed_up` is the median ratio of wall times of carrying out a
  plan, start-up of worker processes and consolidation included; `speed_up_of_commands` that of whole commands.
- kills: the same units on 2 Dask workers, of whose processes one is killed with SIGKILL every `--every` seconds. One is
  left alone until it has published something since it started (bench/unit_kills.py), so that the run gets on at any
  speed.
- across: the same units, interrupted (SIGINT) serially after a third, on Dask after another third, and finished on
  Slurm's array (submitit's local cluster).
- empty: batches that do nothing, through each executor: what carrying them costs.

`--case` chooses among them. Each run must have the content of the serial one, bit for bit; else the command exits with
1. The JSON file is written anew after every row; `complete` says whether the last one has come.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import commands
import machine
import torch
from unit_kills import Killer

import equivengine as eqv
from equivengine.contracts.unit import SampleRef
from equivengine.runtime.registry import from_environment
from equivengine.store import content_digest, open_run

HERE = Path(__file__).parent
SERIAL = ("--executor", "serial", "--set-executor", "threads=1")
DASK = ("--executor", "dask", "--set-executor", "workers=2", "--set-executor", "threads=1")
SLURM = ("--executor", "slurm", *[word for setting in ("cluster=local", "tasks=2", "threads=1", "look=0.5")
                                 for word in ("--set-executor", setting)])  # fmt: skip
#: What `ldlc` is given unless `--set` says otherwise: so few directions that a unit takes about a third of a second.
FEW = ("directions=8", "null_directions=8", "singular_directions=4", "gradient_steps=4")
CASES = ("speed", "kills", "across", "empty")


def digest(path: Path) -> str:
    with open_run(path / "run.h5") as run:
        return content_digest(run)


def speed(folder: Path, probe: list[object], rounds: int) -> Iterator[dict[str, Any]]:
    """Both executors by turns; the machine's other work hits both alike. The row so far, after each round."""
    times: dict[str, list[float]] = {"serial": [], "dask": [], "serial command": [], "dask command": []}
    contents = set()
    for number in range(rounds):
        for name, where in (("serial", SERIAL), ("dask", DASK)):
            out = folder / f"{name}-{number}"
            start = time.perf_counter()
            times[name].append(commands.finished(commands.start(*probe, "--out", out, *where))["seconds"])
            times[f"{name} command"].append(time.perf_counter() - start)
            contents.add(digest(out))
            print(f"{name}: {times[name][-1]:.1f} s", flush=True)
        ratios = [serial / dask for serial, dask in zip(times["serial"], times["dask"], strict=True)]
        whole = [serial / dask for serial, dask in zip(times["serial command"], times["dask command"], strict=True)]
        yield {
            "case": "speed",
            "workers": 2,
            "serial_s": times["serial"],
            "dask_s": times["dask"],
            "speed_up": statistics.median(ratios),
            "speed_up_of_commands": statistics.median(whole),
            "same_content": len(contents) == 1,
        }


def kills(folder: Path, probe: list[object], every: float, wanted: str, seed: int) -> dict[str, Any]:
    out, log = folder / "killed", folder / "killed.log"
    killer = Killer(log, every, random.Random(seed))
    program = (sys.executable, str(HERE / "unit_kills.py"), str(log))
    document = commands.finished(commands.start(*probe, "--out", out, *DASK, program=program), killer.strike)
    return {
        "case": "kills",
        "workers": 2,
        "every_s": every,
        "kills": killer.kills,
        "most_of_one_batch": max(killer.deaths.values(), default=0),
        "seconds": document["seconds"],
        "outcomes": document["outcomes"],
        "temporaries_left": len(list(out.rglob("tmp.*"))),
        "same_content": digest(out) == wanted,
    }


def across(folder: Path, probe: list[object], limit: int, wanted: str) -> dict[str, Any]:
    out = folder / "across"

    def enough(share: float) -> Callable[[], bool]:
        return lambda: commands.published(out) >= share * limit

    codes = [commands.interrupt(commands.start(*probe, "--out", out, *SERIAL), enough(1 / 3))]
    first = commands.published(out)
    codes.append(commands.interrupt(commands.start("resume", out, *DASK), enough(2 / 3)))
    second = commands.published(out)
    document = commands.finished(commands.start("resume", out, *SLURM))
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

    def compute(self, ids: Any) -> Any:
        return functools.partial(self, ids)

    def record_failure(self, batch: Any, message: str, error_type: str) -> tuple[eqv.UnitOutcome, ...]:
        raise AssertionError(message)


def tally(done: Counter[str], batch: tuple[eqv.Unit, ...], outcomes: object) -> None:
    done[batch[0].unit_id] += 1


def empty(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """Milliseconds for each batch of one unit that does nothing, start-up of processes measured apart."""
    registry = from_environment()
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
        yield row


def measure(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """The rows, each as soon as it is there; that of `speed` comes again and again, each time with one round more."""
    settings = [word for one in options.set for word in ("--set", one)]
    probe = ["probe", "--plugin", options.probe, "--images", "digits", "--limit", options.limit, *settings]
    if "speed" in options.case:
        yield from speed(folder, probe, options.rounds)
    elif {"kills", "across"} & set(options.case):
        commands.finished(commands.start(*probe, "--out", folder / "serial-0", *SERIAL))
    if "kills" in options.case:
        yield kills(folder, probe, options.every, digest(folder / "serial-0"), options.seed)
    if "across" in options.case:
        yield across(folder, probe, options.limit, digest(folder / "serial-0"))
    if "empty" in options.case:
        yield from empty(folder, options.empty)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES, help="one or several (default: all)")
    parser.add_argument("--probe", default="ldlc", help="(default %(default)s)")
    few = f"a parameter of the probe (default of ldlc: {' '.join(FEW)})"
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help=few)
    parser.add_argument("--limit", type=int, default=64, help="images (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of both executors (default %(default)s)")
    parser.add_argument("--every", type=float, default=4.0, help="least seconds between kills (default %(default)s)")
    parser.add_argument("--empty", type=int, default=2000, help="batches that do nothing (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    options = parser.parse_args()
    options.case = options.case or list(CASES)
    if options.set is None:
        options.set = list(FEW) if options.probe == "ldlc" else []

    document = machine.document(
        "executors", torch.device("cpu"), probe=options.probe, set=options.set, units=options.limit, seed=options.seed
    )
    document["complete"] = False
    rows = document["results"]
    save = functools.partial(machine.write, options.out, machine.file_name("executors", document["name"]), document)
    commands.prepare()
    before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *before])  # processes of units find `Nothing`
    with tempfile.TemporaryDirectory() as place:
        for row in measure(options, Path(place)):
            if row["case"] == "speed" and rows:
                rows.pop()
            rows.append(row)
            print("; ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            save()
    document["complete"] = True
    print(save())
    wrong = [row for row in rows if not held(row, options.limit)]
    if wrong:
        sys.exit(f"not as promised: {wrong}")


def held(row: dict[str, Any], units: int) -> bool:
    """Whether a case is what was promised, of a run of so many units."""
    if not row.get("same_content", True) or row.get("temporaries_left", 0):
        return False
    if row["case"] == "kills":
        return row["kills"] > 0 and row["outcomes"] == {"published": units, "skipped": 0}
    return row["case"] != "across" or (row["exit_codes"] == [130, 130, 0] and sum(row["units"]) == units)


if __name__ == "__main__":
    main()
