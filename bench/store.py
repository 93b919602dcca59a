"""What storing costs: `python bench/store.py`, some minutes.

1,000 units of the cheapest probe that is shipped, `spectrum` on the digits model, are run by the engine. Two measures:

- within: the time for which the store holds up one run of all units (making its directory, waiting for a unit to be
  published, consolidation, and what else the engine asks of it) over the rest. No moment of the machine slows one side
  alone. Units are published beside the next one; where that slows the next one down, only the second measure sees it.
- between: blocks of units with the store, and the same blocks with one that keeps nothing, by turns; the median over
  blocks of the ratio of their times. Consolidation of a block is part of it.

Published results are durable: each is flushed to disk, with its directory, before it is reported. The milliseconds of
each step are those of this disk; `disk` says what a flush alone takes on it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import machine
import torch

from equivengine.runtime import engine, worker
from equivengine.runtime.config import RunConfig, validated
from equivengine.store import RunDirectory, atomic, consolidate, shard

HERE = Path(__file__).parent
#: What is promised: time with storing over time without, less one.
BAR = 0.05


def config(out: Path, images: list[str], probe: str) -> RunConfig:
    return validated({"probes": [{"name": probe}], "models": ["digits"], "images": images, "device": "cpu",
                      "out": str(out)})  # fmt: skip


class Stopwatch:
    """Wall time within functions; what a function asks of another timed one counts for both.

    What is done in another thread than the main one is called "beside".
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*arguments: Any, **options: Any) -> Any:
            beside = threading.current_thread() is not threading.main_thread()
            label = f"{name}, beside" if beside else name
            start = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.seconds[label] += time.perf_counter() - start
                self.calls[label] += 1

        return wrapper


@contextlib.contextmanager
def replaced(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Attributes by other ones, for a while."""
    former = [(owner, name, owner.__dict__[name]) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in former:
            setattr(owner, name, value)


def within(folder: Path, images: list[str], probe: str) -> dict[str, Any]:
    """One run, with what passes within the store."""
    watch = Stopwatch()
    steps = [
        (RunDirectory, "publish", "publish"),
        (Future, "result", "wait"),
        (RunDirectory, "consolidate", "consolidate"),
        (RunDirectory, "is_published", "look up"),
        (RunDirectory, "published", "look up"),
        (shard, "write_shard", "write and read back"),
        (atomic, "_sync_file", "flush file"),
        (atomic, "sync_directory", "flush directory"),
        (consolidate, "write_run_file", "write run.h5"),
    ]
    changes = [(owner, name, watch.timed(label, getattr(owner, name))) for owner, name, label in steps]
    made = watch.timed("open", RunDirectory.create_or_open)
    measured = watch.timed("units", worker._measure)
    with replaced(*changes, (RunDirectory, "create_or_open", staticmethod(made)), (worker, "_measure", measured)):
        report = engine.execute(config(folder / "within", images, probe))
    count = report.outcomes["published"]
    store = sum(watch.seconds[name] for name in ("open", "publish", "wait", "consolidate", "look up"))
    return {
        "case": "within",
        "units": count,
        "total_s": round(report.seconds, 3),
        "store_s": round(store, 3),
        "overhead": round(store / (report.seconds - store), 4),
        "overhead_of_probe": round(store / watch.seconds["units"], 4),
        "unit_ms": round(1e3 * watch.seconds["units"] / count, 3),
        "ms_per_unit": {name: round(1e3 * seconds / count, 3) for name, seconds in watch.seconds.items()},
        "calls": dict(watch.calls),
        "bytes_per_shard": round(statistics.mean(p.stat().st_size for p in (folder / "within/shards").rglob("*.h5"))),
    }


def between(folder: Path, images: Callable[[int], list[str]], probe: str, blocks: int) -> dict[str, Any]:
    """Blocks with and without storing, by turns."""
    nothing = (
        (RunDirectory, "publish", lambda *_: True),
        (RunDirectory, "is_published", lambda *_: False),
        (RunDirectory, "published", lambda *_: set()),
        (RunDirectory, "consolidate", lambda *_: None),
    )
    times: dict[str, list[float]] = {"with": [], "without": []}
    for block in range(blocks):
        for way in ("with", "without") if block % 2 else ("without", "with"):
            out = folder / f"{way}-{block}"
            with replaced(*nothing) if way == "without" else contextlib.nullcontext():
                times[way].append(engine.execute(config(out, images(block), probe)).seconds)
    ratios = [a / b for a, b in zip(times["with"], times["without"], strict=True)]
    return {
        "case": "between",
        "blocks": blocks,
        "images": images(0),
        "with_s": [round(seconds, 3) for seconds in times["with"]],
        "without_s": [round(seconds, 3) for seconds in times["without"]],
        "overhead": round(statistics.median(ratios) - 1, 4),
        "overhead_of_all": round(sum(times["with"]) / sum(times["without"]) - 1, 4),
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
    }


def disk(folder: Path, size: int, files: int = 100) -> dict[str, Any]:
    """What flushing a file of that size, and its directory, takes; nothing else is done."""
    place = folder / "disk"
    place.mkdir()
    times: dict[str, list[float]] = {"file_ms": [], "directory_ms": []}
    for number in range(files):
        path = place / str(number)
        path.write_bytes(bytes(size))
        for name, flush in (
            ("file_ms", atomic._sync_file),
            ("directory_ms", lambda p: atomic.sync_directory(p.parent)),
        ):
            start = time.perf_counter()
            flush(path)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {"case": "disk", "bytes": size, **{name: round(statistics.median(ts), 3) for name, ts in times.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=1000, help="(default %(default)s)")
    parser.add_argument("--blocks", type=int, default=10, help="with and without storing (default %(default)s)")
    parser.add_argument("--each", type=int, default=50, help="units of a block (default %(default)s)")
    parser.add_argument("--probe", default="spectrum")
    parser.add_argument("--place", type=Path, help="folder whose disk is measured (default: that for temporary files)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    options = parser.parse_args()

    document = machine.document("store", torch.device("cpu"), probe=options.probe, bar=BAR)
    rows = document["results"]
    digits = min(360, options.units)
    images = ["digits", f"noise:{options.units - digits}?size=32&mode=L"] if options.units > 360 else [
        f"noise:{options.units}?size=32&mode=L"]  # fmt: skip
    with tempfile.TemporaryDirectory(dir=options.place) as place:
        folder = Path(place)
        engine.execute(config(folder / "warm", ["noise:3?size=32&mode=L"], options.probe))
        rows.append(within(folder, images, options.probe))
        print(_line(rows[-1]))
        rows.append(disk(folder, rows[0]["bytes_per_shard"]))
        print(f"flush alone: file {rows[-1]['file_ms']} ms, directory {rows[-1]['directory_ms']} ms")
        rows.append(between(folder, lambda block: [f"noise:{options.each}?size=32&mode=L&seed={block + 1}"],
                            options.probe, options.blocks))  # fmt: skip
        print(_line(rows[-1]))
    document["load_average_after"] = os.getloadavg()[0]
    print(machine.write(options.out, machine.file_name("store", document["name"]), document))
    if rows[0]["overhead"] > BAR or rows[2]["overhead"] > BAR:
        sys.exit(f"storing takes more than {BAR:.0%}")


def _line(row: dict[str, Any]) -> str:
    if row["case"] == "between":
        return f"between: storing adds {row['overhead']:.2%} (median of {row['blocks']} blocks)"
    steps = ", ".join(f"{name} {ms}" for name, ms in row["ms_per_unit"].items())
    return f"within: storing adds {row['overhead']:.2%}; ms per unit: {steps}"


if __name__ == "__main__":
    main()
