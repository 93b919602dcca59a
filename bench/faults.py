"""Whether runs survive, and whether damage is found: `python bench/faults.py`, some minutes.

Kills: a run of 200 units is started, killed with SIGKILL at a random moment, resumed, killed again, until it is
finished; then the next one, until 200 kills are counted. The moment is uniform over a time that begins, by turns at
random, with the process, with its first unit, or (where little is left to do) with its consolidation. That time is a
share of what an undisturbed run takes, so that kills fall on all of it however fast the machine is. After each kill,
every shard that was there before is held against its bytes, every new one is read in whole, and every unit that was
reported as published must be there. Each finished run must have the content of an undisturbed one, bit for bit.

Damage: single bits are flipped, and ends cut off, at uniformly random places of each kind of file of a run;
`inspect_run` (`equivengine verify`) must name the file each time. Each case is limited in time: one that hangs is
counted, not waited for.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

from equivengine import Array, Picture, open_run
from equivengine.runtime import engine
from equivengine.runtime.config import RunConfig, validated
from equivengine.store import RunDirectory, content_digest, digests, inspect_run, scan, schema

HERE = Path(__file__).parent
TOYS = HERE.parent / "tests" / "toys"
PHASES = ("planning", "inspection", "unit", "publishing", "consolidation")
#: What a run imports, some of it late: a process that has it starts in a fraction of a second.
PRELOADED = [
    "__main__",
    "equivengine.runtime.engine",
    "equivengine.linearize.program",
    "torch.fx.experimental.symbolic_shapes",
    "PIL.PngImagePlugin",
]
#: A case of damage that takes longer counts as hung, seconds.
LIMIT = 10


def install_toys(folder: Path) -> None:
    """The plugin of the tests, as pip would leave it: units that take 10 ms and give the same bits anywhere."""
    info = folder / "toys-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[equivengine]\ntoys = equivengine_toys\n")
    sys.path[:0] = [str(folder), str(TOYS)]
    os.environ["EQUIVENGINE_PLUGINS"] = "toys,noise,serial"


def config(out: Path, units: int) -> RunConfig:
    probe = {"name": "measure", "set": {"seconds": 0.01}}
    images = [f"noise:{units}?size=8&mode=L"]
    return validated({"probes": [probe], "models": ["toy"], "images": images, "device": "cpu", "out": str(out)})


# ----------------------------------------------------------------------------------------------------------- kills


def carry_out(given: RunConfig, log: Path, phase: Path) -> None:
    """In a process of its own: run or resume, say in which phase it is, and promise what is reported as published."""
    torch.set_num_threads(1)
    promises = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    board = os.open(phase, os.O_WRONLY | os.O_CREAT)

    def within(number: int, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def marked(*arguments: Any, **options: Any) -> Any:
            os.pwrite(board, bytes([number]), 0)
            try:
                return call(*arguments, **options)
            finally:
                os.pwrite(board, bytes([2]), 0)

        return marked

    def on_done(unit: Any, outcome: Any) -> None:
        if outcome.outcome == "published":
            os.write(promises, f"{unit.unit_id}\n".encode())

    os.pwrite(board, bytes([0]), 0)
    engine.inspect_run = within(1, engine.inspect_run)  # type: ignore[attr-defined]
    RunDirectory.publish = within(3, RunDirectory.publish)  # type: ignore[method-assign]
    RunDirectory.consolidate = within(4, RunDirectory.consolidate)  # type: ignore[method-assign]
    if (Path(given.out or "") / schema.PLAN_FILE).exists():
        engine.resume(str(given.out), device="cpu", on_done=on_done)
    else:
        engine.execute(given, on_done=on_done)


class Witness:
    """Remembers every shard of a run, and sees whether any is lost, changed or unreadable."""

    def __init__(self, out: Path, log: Path) -> None:
        self.out, self.log = out, log
        self.seen: dict[Path, str] = {}

    def look(self) -> dict[str, int]:
        shards = set((self.out / schema.SHARDS).glob("*/[0-9a-f]*.h5"))
        lost = sum(path not in shards for path in self.seen)
        changed = sum(digests.sha256_of(path) != self.seen[path] for path in shards & set(self.seen))
        unreadable = 0
        for path in shards - set(self.seen):
            try:
                unreadable += scan.scan_shard(path) != [path.stem]
            except Exception:
                unreadable += 1
            self.seen[path] = digests.sha256_of(path)
        promised = set(self.log.read_text().split()) if self.log.exists() else set()
        lost += len(promised - {path.stem for path in shards})
        for name, read in ((schema.PLAN_FILE, lambda path: RunDirectory.open(path.parent)),
                           (schema.RUN_FILE, scan.scan_run_file)):  # fmt: skip
            if (self.out / name).exists():
                try:
                    read(self.out / name)
                except Exception:
                    unreadable += 1
        return {"lost": lost, "changed": changed, "unreadable": unreadable}


def wait_for_phase(process: Any, board: Path, phase: int) -> None:
    """Wait until a process says that it is in that phase or beyond, or has ended."""
    while phase and process.exitcode is None:
        with contextlib.suppress(OSError, IndexError):
            if board.read_bytes()[0] >= phase:
                return
        process.join(0.002)


def content(out: Path) -> str:
    with open_run(out) as run:
        return content_digest(run)


def kills(folder: Path, wanted: int, units: int, rng: random.Random) -> dict[str, Any]:
    """Kill and resume until so many kills are counted and the last run is finished."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    start = time.perf_counter()
    engine.execute(config(folder / "undisturbed", units))
    working = time.perf_counter() - start
    undisturbed = content(folder / "undisturbed")
    start = time.perf_counter()
    RunDirectory.open(folder / "undisturbed").consolidate()
    gathering = time.perf_counter() - start
    for _ in range(2):  # the first one starts the server
        start = time.perf_counter()
        process = context.Process(target=carry_out, args=(config(folder / "one", 1), folder / "log", folder / "phase"))
        process.start()
        process.join()
        starting = time.perf_counter() - start
    phases: Counter[str] = Counter()
    total: Counter[str] = Counter()
    runs = equal = 0
    while sum(phases.values()) < wanted:
        out = folder / f"run-{runs}"
        witness = Witness(out, folder / f"log-{runs}")
        code = None
        while code != 0:
            early = sum(phases.values()) < 0.7 * wanted and len(witness.seen) < 0.9 * units
            aim = rng.choice([0, 2, 2, 2] if early else [0, 2, 4, 4, 4])
            moment = rng.uniform(0, {0: starting, 2: 0.4 * working, 4: 1.2 * gathering}[aim])
            process = context.Process(target=carry_out, args=(config(out, units), witness.log, folder / "phase"))
            process.start()
            if sum(phases.values()) < wanted:
                wait_for_phase(process, folder / "phase", aim)
                process.join(moment)
            else:
                process.join()
            if process.exitcode is None:
                assert process.pid is not None
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            process.join(60)
            code = process.exitcode
            if code == -signal.SIGKILL:
                phases[PHASES[(folder / "phase").read_bytes()[0]] if (folder / "phase").exists() else PHASES[0]] += 1
            elif code != 0:
                total["errors"] += 1
            total.update(witness.look())
            (folder / "phase").unlink(missing_ok=True)
            print(
                f"\r{sum(phases.values())} kills, {len(witness.seen)} of {units} units of run {runs}  ",
                end="",
                flush=True,
            )
        found = inspect_run(out)
        total["unreadable"] += len(found.findings)
        total["unfinished"] += len(found.missing) + len(found.failed) + found.outdated
        total["temporaries"] += len(list(out.rglob("tmp.*")))
        equal += content(out) == content(out / schema.RUN_FILE) == undisturbed
        runs += 1
        shutil.rmtree(out)
    print()
    return {
        "case": "kills",
        "kills": sum(phases.values()),
        "by_phase": {phase: phases[phase] for phase in PHASES},
        "runs": runs,
        "units": units,
        "published_lost": total["lost"],
        "published_changed": total["changed"],
        "unreadable_files": total["unreadable"],
        "unfinished": total["unfinished"],
        "temporaries_left": total["temporaries"],
        "errors": total["errors"],
        "runs_of_identical_content": equal,
    }


# ---------------------------------------------------------------------------------------------------------- damage


class Hung(BaseException):
    """A case took longer than `LIMIT`."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hung

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)


def damaged_files(folder: Path) -> tuple[Path, dict[str, Path]]:
    """A run of three units: a small shard, one of 0.3 MB with chunks and pictures, and a failure."""
    engine.execute(config(folder / "source", 3))
    with open_run(folder / "source") as run:
        (small, large, failed), plan, digest = list(run.results("measure")), run.plan, run.plan_digest
    noise = np.random.default_rng(0)
    large[1].arrays.update(  # type: ignore[attr-defined]  a dict, as `UnitRecord.result` makes it
        V=Array(noise.standard_normal((64, 400)), ("direction", "pixel"), "1", "directions"),
    )
    large[1].pictures.update(  # type: ignore[attr-defined]
        matched=Picture(noise.integers(0, 256, (120, 120, 3), np.uint8), "what was matched")
    )
    out = RunDirectory.create_or_open(folder / "damaged", plan, digest)
    for unit, result in (small, large):
        out.publish(unit, result, {"host": "here"})
    out.record_failure(failed[0], "it broke")
    out.consolidate()
    paths = {
        "small shard": out.path / schema.shard_path(small[0].unit_id),
        "large shard": out.path / schema.shard_path(large[0].unit_id),
        schema.RUN_FILE: out.path / schema.RUN_FILE,
        schema.PLAN_FILE: out.path / schema.PLAN_FILE,
        "failure": next((out.path / schema.FAILURES).iterdir()),
    }
    return out.path, paths


def damage(root: Path, path: Path, name: str, what: str, cases: int, spoil: Callable[[bytes], bytes]) -> dict[str, Any]:
    """Spoil one file so many times, each time from the original."""
    original = path.read_bytes()
    found = crashes = hangs = 0
    slowest = 0.0
    for _ in range(cases):
        path.write_bytes(spoil(original))
        start = time.perf_counter()
        try:
            with limited():
                found += path in {finding.path for finding in inspect_run(root).findings}
        except Hung:
            hangs += 1
        except Exception:
            crashes += 1
        slowest = max(slowest, time.perf_counter() - start)
    path.write_bytes(original)
    assert not inspect_run(root).findings
    return {
        "case": what,
        "file": name,
        "bytes": len(original),
        "cases": cases,
        "found": found,
        "crashes": crashes,
        "hangs": hangs,
        "slowest_s": round(slowest, 3),
    }


def flip(rng: random.Random) -> Callable[[bytes], bytes]:
    def spoil(original: bytes) -> bytes:
        spoilt = bytearray(original)
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        return bytes(spoilt)

    return spoil


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="(default %(default)s)")
    parser.add_argument("--units", type=int, default=200, help="of a run (default %(default)s)")
    parser.add_argument("--flips", type=int, default=500, help="in each shard; a fifth elsewhere (default %(default)s)")
    parser.add_argument("--truncations", type=int, default=100, help="likewise (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    options = parser.parse_args()

    torch.set_num_threads(1)
    document = machine.document("faults", torch.device("cpu"), seed=options.seed)
    rng = random.Random(options.seed)
    rows = document["results"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        install_toys(folder / "site")
        root, paths = damaged_files(folder)
        for name, path in paths.items():
            part = 1 if name.endswith("shard") else 5
            rows.append(damage(root, path, name, "flipped bit", options.flips // part, flip(rng)))
            cut = lambda original: original[: rng.randrange(len(original))]  # noqa: E731
            rows.append(damage(root, path, name, "truncation", options.truncations // part, cut))
            for row in rows[-2:]:
                print(f"{row['case']:12} {name:12} {row['found']} of {row['cases']} found, "
                      f"{row['crashes']} crashes, {row['hangs']} hangs, slowest {row['slowest_s']} s")  # fmt: skip
        if options.kills:
            rows.append(kills(folder, options.kills, options.units, rng))
            print("; ".join(f"{key} {value}" for key, value in rows[-1].items() if key != "case"))
    print(machine.write(options.out, machine.file_name("faults", document["name"]), document))
    wrong = [row for row in rows if not held(row)]
    if wrong:
        sys.exit(f"not as promised: {wrong}")


def held(row: dict[str, Any]) -> bool:
    """Whether a case is what was promised."""
    if row["case"] != "kills":
        return (row["found"], row["crashes"], row["hangs"]) == (row["cases"], 0, 0)
    bad = ("published_lost", "published_changed", "unreadable_files", "unfinished", "temporaries_left", "errors")
    return not any(row[name] for name in bad) and row["runs_of_identical_content"] == row["runs"]


if __name__ == "__main__":
    main()
