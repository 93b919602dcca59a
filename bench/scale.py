"""What a run costs that measures nothing: `python bench/scale.py --units 1000 10000 100000`, half an hour.

Units of a probe that computes nothing (`scale_plugin.py`), on synthetic images and 20 models of 16 pixels, go through
every step of a run, each in a process of its own:

- plan: every name is resolved, units are listed, the plan is written as JSON and read again;
- units: they are run one after the other by the serial executor, and published;
- consolidate: ``run.h5`` is made;
- open: the directory, and ``run.h5``, with the summary of each unit;
- show, report, verify: as the commands do; resume: of a run that is complete.

For each step and size: CPU seconds, wall seconds, and the most resident memory, above that at the start of the step.
Between sizes: the exponent p of seconds ~ units^p by least squares over logarithms, and, between the two largest, the
bytes that a unit adds.
CPU seconds do not depend on what else the machine does, wall seconds do.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODELS = 20
STEPS = ("plan", "run", "open", "show", "report", "verify", "resume")
#: No step may grow faster: n log n over two decades from 10^3 is a power of 1.11, and the rest is the machine's noise.
STEEPEST = 1.2

Row = dict[str, Any]


def registry() -> Any:
    """The installed plugins, and that of this benchmark."""
    from equivengine.runtime.registry import GROUP, Registry

    sys.path.insert(0, str(HERE))
    ours = importlib.metadata.EntryPoint(name="scale", value="scale_plugin", group=GROUP)
    return Registry.load(entries=[*importlib.metadata.entry_points(group=GROUP), ours])


def config(units: int, out: Path) -> Any:
    """A run of so many units."""
    from equivengine.runtime.config import validated

    models = [f"smallest?seed={seed}" for seed in range(MODELS)]
    return validated({"probes": [{"name": "empty"}], "models": models, "images": [f"blank:{units // MODELS}"],
                      "device": "cpu", "out": str(out)})  # fmt: skip


def _status(field: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


@contextmanager
def measured(rows: list[Row], step: str, units: int) -> Iterator[None]:
    """Add a row with what passes within."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins again
    start, wall, cpu = _status("VmRSS"), time.perf_counter(), time.process_time()
    yield
    seconds, passed = time.process_time() - cpu, time.perf_counter() - wall
    peak = _status("VmHWM")
    rows.append({"step": step, "units": units, "cpu_s": round(seconds, 4), "wall_s": round(passed, 4),
                 "peak_bytes": peak, "above_start_bytes": max(0, peak - start)})  # fmt: skip


def plan(units: int, run: Path) -> list[Row]:
    """From a configuration to a plan, to JSON, and back."""
    from equivengine.runtime.engine import plan_of
    from equivengine.runtime.plan import Plan

    rows: list[Row] = []
    plugins = registry()
    plan_of(config(MODELS, run), plugins)  # torch, and what else comes with the first model
    with measured(rows, "plan", units):
        made, _ = plan_of(config(units, run), plugins)
        text = json.dumps(made.to_json())
        assert len(Plan.from_json(json.loads(text)).units) == units
        assert made.digest
    rows[0]["plan_json_bytes"] = len(text)
    return rows


def run(units: int, run: Path) -> list[Row]:
    """Run and publish; consolidate."""
    from equivengine.runtime import engine
    from equivengine.store import RunDirectory

    rows: list[Row] = []
    plugins = registry()
    engine.execute(config(MODELS, run.with_name("first")), registry=plugins)
    consolidate = RunDirectory.consolidate
    with measured(rows, "all of a run", units):
        before: list[Row] = []

        def timed(directory: RunDirectory) -> Any:
            before.append({"cpu": time.process_time(), "wall": time.perf_counter(), "peak": _status("VmHWM")})
            with measured(rows, "consolidate", units):
                return consolidate(directory)

        RunDirectory.consolidate = timed  # type: ignore[method-assign]  # timed, nothing else
        cpu, wall, rss = time.process_time(), time.perf_counter(), _status("VmRSS")
        report = engine.execute(config(units, run), registry=plugins)
    assert report.outcomes["published"] == units, report.failures[:1]
    (whole,) = (row for row in rows if row["step"] == "all of a run")
    (mark,) = before
    peak = mark["peak"]
    whole.update(step="units", cpu_s=round(mark["cpu"] - cpu, 4), wall_s=round(mark["wall"] - wall, 4),
                 peak_bytes=peak, above_start_bytes=max(0, peak - rss))  # fmt: skip
    files = [path for path in run.rglob("*") if path.is_file()]
    rows.append({"step": "disk", "units": units, "files": len(files), "bytes": sum(p.stat().st_size for p in files),
                 "run_h5_bytes": (run / "run.h5").stat().st_size,
                 "blocks_bytes": sum(512 * p.stat().st_blocks for p in files)})  # fmt: skip
    return rows


def open_(units: int, run: Path) -> list[Row]:
    """The directory and the file, with the summary of every unit."""
    from equivengine.store import open_run

    rows: list[Row] = []
    with open_run(run.with_name("first")) as first:
        first.units()
    for step, path in (("open directory", run), ("open run.h5", run / "run.h5")):
        with measured(rows, step, units), open_run(path) as opened:
            assert len(opened.published) == units
            assert len(opened.summary("empty")["sum"].values) == units
    return rows


def show(units: int, run: Path) -> list[Row]:
    """The summary."""
    from equivengine.cli.summary import run_document
    from equivengine.store import open_run

    rows: list[Row] = []
    with open_run(run.with_name("first")) as first:
        run_document(first)
    with measured(rows, "show", units), open_run(run) as opened:
        assert run_document(opened)["published"] == units
    return rows


def report(units: int, run: Path) -> list[Row]:
    """The page."""
    from equivengine.report.page import write_report
    from equivengine.store import open_run

    rows: list[Row] = []
    plugins = registry()
    with open_run(run.with_name("first")) as first:
        write_report(first, plugins, run.with_name("first.html"))
    with measured(rows, "report", units), open_run(run) as opened:
        write_report(opened, plugins, run.with_name("report.html"))
    return rows


def verify(units: int, run: Path) -> list[Row]:
    """Read every byte."""
    from equivengine.store import inspect_run

    rows: list[Row] = []
    inspect_run(run.with_name("first"))
    with measured(rows, "verify", units):
        assert not inspect_run(run).findings
    return rows


def resume(units: int, run: Path) -> list[Row]:
    """A run that is complete."""
    from equivengine.runtime import engine

    rows: list[Row] = []
    plugins = registry()
    engine.resume(run.with_name("first"), registry=plugins)
    with measured(rows, "resume", units):
        assert engine.resume(run, registry=plugins).outcomes["skipped"] == units
    return rows


CALLS: dict[str, Callable[[int, Path], list[Row]]] = {
    "plan": plan, "run": run, "open": open_, "show": show, "report": report, "verify": verify, "resume": resume
}  # fmt: skip


def growth(rows: list[Row]) -> list[Row]:
    """How each step grows between the sizes that it was measured at."""
    found = []
    for step in dict.fromkeys(row["step"] for row in rows if "cpu_s" in row):
        points = sorted((row for row in rows if row["step"] == step), key=lambda row: row["units"])
        if len(points) < 2:
            continue
        last = points[-1]
        # From the size before: up to some ten thousand units, buffers fill that grow no further.
        before = points[-2]
        added = (last["peak_bytes"] - before["peak_bytes"]) / (last["units"] - before["units"])
        found.append({"step": step, "exponent": round(exponent(points, "cpu_s"), 3),
                      "last_exponent": round(exponent(points[-2:], "cpu_s"), 3),
                      "bytes_per_unit": round(added, 1), "cpu_ms_per_unit": 1e3 * last["cpu_s"] / last["units"],
                      "units_per_s": last["units"] / last["wall_s"]})  # fmt: skip
    return found


def exponent(points: list[Row], name: str) -> float:
    """Slope of the logarithm of what was measured over that of the number of units, by least squares."""
    xs = [math.log(row["units"]) for row in points]
    ys = [math.log(max(row[name], 1e-4)) for row in points]
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / sum(
        (x - middle_x) ** 2 for x in xs
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", default=[1000, 10_000, 100_000], help="(default %(default)s)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="(default: all)")
    parser.add_argument("--place", type=Path, help="folder for the runs (default: that for temporary files)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    parser.add_argument("--step", nargs=3, metavar=("STEP", "UNITS", "RUN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, units, run_path = options.step
        print(json.dumps(CALLS[step](int(units), Path(run_path))))
        return

    import machine
    import torch

    document = machine.document("scale", torch.device("cpu"), models=MODELS)
    for units in options.units:
        folder = Path(tempfile.mkdtemp(prefix="scale-", dir=options.place))
        try:
            for step in options.steps:
                document["results"] += _in_a_process(step, units // MODELS * MODELS, folder / "run")
        finally:
            shutil.rmtree(folder)
        document["growth"] = growth(document["results"])  # after each size: a run that is broken off keeps the others
        document["load_average_after"] = os.getloadavg()[0]
        print(machine.write(options.out, machine.file_name("scale", document["name"]), document))
    for row in document["growth"]:
        print(f"{row['step']}: exponent {row['exponent']}, {row['bytes_per_unit']:.0f} bytes per unit")
    steep = [row["step"] for row in document["growth"] if row["exponent"] > STEEPEST]
    if steep:
        sys.exit(f"grows faster than n log n: {', '.join(steep)}")


def _in_a_process(step: str, units: int, run_path: Path) -> list[Row]:
    arguments = [sys.executable, __file__, "--step", step, str(units), str(run_path)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    rows: list[Row] = json.loads(done.stdout.splitlines()[-1])
    for row in rows:
        words = ", ".join(f"{key} {value:,}" for key, value in row.items() if key not in ("step", "units"))
        print(f"{row['units']:,} units, {row['step']}: {words}", flush=True)
    return rows


if __name__ == "__main__":
    main()
