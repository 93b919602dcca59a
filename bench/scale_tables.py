"""The tables of docs/scale.md, and the arithmetic in them: what is measured, and what follows at a million units."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

Rows = list[list[str]]

#: ImageNet's validation set by 20 models.
MILLION = 1_000_000
#: Steps of `bench/scale.py` in the order of a run.
STEPS = ("plan", "units", "consolidate", "open directory", "open run.h5", "show", "report", "verify", "resume")


def _table(head: list[str], rows: Rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def scale(document: dict[str, Any]) -> str:
    """Steps by number of units; how they grow; a million."""
    rows = document["results"]
    sizes = sorted({row["units"] for row in rows})
    found = {(row["step"], row["units"]): row for row in rows}
    growth = {row["step"]: row for row in document["growth"]}
    head = ["step", *(f"{size:,} units: CPU" for size in sizes), "a unit", "units/s", "exponent", "peak memory"]
    head += ["a unit adds", f"{MILLION:,} units"]
    lines = []
    for step in [step for step in STEPS if step in growth]:
        before, last, grown = found[step, sizes[-2]], found[step, sizes[-1]], growth[step]
        added = (last["peak_bytes"] - before["peak_bytes"]) / (sizes[-1] - sizes[-2])
        lines.append(
            [
                step,
                *(_seconds(found[step, size]["cpu_s"]) for size in sizes),
                f"{1e3 * last['cpu_s'] / sizes[-1]:.2g} ms",
                f"{sizes[-1] / last['wall_s']:,.0f}",
                f"{grown['exponent']:.2f} ({grown['last_exponent']:.2f})",
                f"{last['peak_bytes'] / 1e6:,.0f} MB",
                f"{added:,.0f} bytes",
                _seconds(beyond(last["cpu_s"], sizes[-1], grown["last_exponent"])),
            ]
        )
    disk = found["disk", sizes[-1]]
    plan = found["plan", sizes[-1]]
    count, load = sizes[-1], document["machine"]["load_average_before"]
    return _table(head, lines) + (
        f"\nUnits per second are wall time, under a load of {load:.1f} at the start; all else is CPU time.\n"
        f"\nOn disk, {count:,} units: {disk['files']:,} files, {disk['blocks_bytes'] / count / 1e3:.1f} KB a unit in "
        f"whole blocks, of which `run.h5` {disk['run_h5_bytes'] / count / 1e3:.1f} KB; `plan.json` "
        f"{plan['plan_json_bytes'] / 1e3:,.0f} KB, {plan['plan_json_bytes'] / count:.1f} bytes a unit.\n"
    )


def store(document: dict[str, Any]) -> str:
    """What storing adds, within a run and between runs."""
    found = {row["case"]: row for row in document["results"]}
    within, between, disk = found["within"], found["between"], found["disk"]
    ratio = between["ratio"]
    rows = [
        [
            f"within one run of {within['units']:,} units of {within['unit_ms']:.0f} ms: what the store holds it up",
            f"{within['overhead']:.1%}",
        ],
        [
            f"between runs with and without it, by turns, median of {between['blocks']}",
            f"{round(between['overhead'], 3) + 0.0:.1%} ({ratio['min'] - 1:.1%} to {ratio['max'] - 1:.1%})",
        ],
    ]
    return _table([f"storing adds to the time of `{document['probe']}`, at most {document['bar']:.0%}", ""], rows) + (
        f"\nFlushing a shard of {disk['bytes'] / 1e3:.0f} KB and its folder takes this disk {disk['file_ms']:.2f} and "
        f"{disk['directory_ms']:.2f} ms if nothing else is done.\n"
    )


def executors(document: dict[str, Any]) -> str:
    """What executors gain, cost and survive."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in document["results"]:
        found.setdefault(row["case"], []).append(row)
    rows = []
    for row in found.get("speed", []):
        rounds = [serial / dask for serial, dask in zip(row["serial_s"], row["dask_s"], strict=True)]
        spread = f"{statistics.median(rounds):.2f} times as fast ({min(rounds):.2f} - {max(rounds):.2f})"
        rows.append([f"{row['workers']} Dask workers against serial, {len(rounds)} rounds", spread, _same(row)])
    for row in found.get("kills", []):
        what = f"{row['workers']} Dask workers, one process of units killed every {row['every_s']:g} s"
        rows.append(
            [what, f"{row['kills']} kills, {row['outcomes']['published']} of {document['units']} units", _same(row)]
        )
    for row in found.get("across", []):
        units = ", ".join(f"{name} {count}" for name, count in zip(row["executors"], row["units"], strict=True))
        rows.append(["interrupted twice, finished on a third executor", f"units: {units}", _same(row)])
    for row in found.get("empty", []):
        what = f"{row['executor']}, a batch that does nothing"
        rows.append([what, f"{row['ms_per_batch']:.2f} ms, after {row['start_up_s']:.1f} s", ""])
    return _table([f"{document['units']} units of `{document['probe']}`", "", "content"], rows)


def _same(row: dict[str, Any]) -> str:
    return "that of the serial run" if row["same_content"] else "ANOTHER ONE"


def beyond(seconds: float, units: int, exponent: float) -> float:
    """Seconds of a million units, by the exponent between the two largest sizes; that is taken to be at least 1."""
    return seconds * (MILLION / units) ** max(1.0, exponent)


def unit_cost(results: Path) -> str:
    """What a unit costs, in forward passes and seconds, and what a million of them cost."""
    operators = [_read(path) for path in sorted(results.glob("operators-*.json")) if "directions" not in path.name]
    if not operators:
        return "Not measured yet, on no device.\n"
    passes = _forward_passes(results)
    found = []
    for document in operators:
        forward = {case["model"]: case["forward_seconds"]["fp32"] for case in document["results"]}
        threads = document["threads"]
        head = ["a unit of", "forward passes", *(f"{name}: a unit" for name in ("ViT-S/16", "ViT-B/16"))]
        head += [f"{MILLION:,} units, ViT-S/16", "on 100 such machines"]
        lines = []
        for what, count in passes:
            small, large = (count * forward[name] for name in ("vit_s16", "vit_b16"))
            hours = small * MILLION / 3600
            lines.append([what, f"{count:,.0f}", f"{small:.1f} s", f"{large:.1f} s", f"{hours:,.0f} h",
                          f"{hours / 100 / 24:.1f} days"])  # fmt: skip
        per = ", ".join(f"{name} {1e3 * forward[key]:.1f} ms" for name, key in
                        (("ViT-S/16", "vit_s16"), ("ViT-B/16", "vit_b16")))  # fmt: skip
        found.append(f"*{document['name']}, {threads} threads; a forward pass of one image in fp32: {per}*\n\n"
                     + _table(head, lines))  # fmt: skip
    if not any(document["device"] == "cuda" for document in operators):
        found.append("Not run on a GPU yet.\n")
    return "\n".join(found)


def _forward_passes(results: Path) -> list[tuple[str, float]]:
    """Forward passes of one unit on ViT-S/16, as other benchmarks have measured them."""
    passes = []
    for path in sorted(results.glob("svd-vit_s16-*.json"))[:1]:
        (case,) = _read(path)["results"]
        ways = {way["way"]: statistics.median(way["forwards"]) for way in case["ways"]}
        passes += [(f"`spectrum`, rank {case['rank']} to 1e-3", ways["ours, auto"]),
                   (f"`spectrum`, all {case['n']} values", ways["ours, exact"])]  # fmt: skip
    for path in sorted(results.glob("matching-vit_s16-lm-*.json"))[:1]:
        (case,) = _read(path)["results"]
        (way,) = case["ways"].values()
        for level in ("0.01", "0.001"):
            passes.append((f"`match`, to a relative distance of {level}", statistics.median(way["to"][level])))
    return passes


def _seconds(value: float) -> str:
    for size, name in ((86400, "days"), (3600, "h"), (60, "min"), (1, "s")):
        if value >= 2 * size or name == "s":
            return f"{value / size:.3g} {name}"
    raise AssertionError  # unreachable: seconds always fit


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
