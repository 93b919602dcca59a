"""The tables of docs/match.md, for `tables.py`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any


def smallest_change(results: Path) -> str:
    """The smallest L2 change at each distance, over the changes of other solvers where they first come as near."""
    ways: dict[str, dict[str, Any]] = {}
    for path in sorted(results.glob("matching-digits-*.json")):
        for case in json.loads(path.read_text(encoding="utf-8"))["results"]:
            ways |= case["ways"]
    others = [name for name in ways if name == "lm" or name.startswith("gd, ")]
    smallest = {
        name.removeprefix("smallest_l2 at "): row for name, row in ways.items() if name.startswith("smallest_l2")
    }
    lines = [["relative distance", "smallest change, median (pairs)", *(f"over `{name}`" for name in others)]]
    lines.append(["---"] * len(lines[0]))
    for level, row in sorted(smallest.items(), key=lambda item: -float(item[0])):
        reached = [length if stop == "reached" else None for length, stop in zip(row["l2"], row["stop"], strict=True)]
        known = [length for length in reached if length is not None]
        cells = [f"{statistics.median(known):.2f} ({len(known)} of {len(reached)})"]
        lines.append([level, *cells, *(_over(reached, ways[name]["l2_at"][level]) for name in others)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _over(mine: list[float | None], theirs: list[float | None]) -> str:
    """Median and largest ratio of the pairs that both have, and their number."""
    ratios = [a / b for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None]
    return f"{statistics.median(ratios):.2f}, {max(ratios):.2f} ({len(ratios)})" if ratios else "none"


def rivals(document: dict[str, Any]) -> str:
    """One row for each map and way: how much longer its change is than that of `smallest_l2`."""
    lines = [["map", "way", "met the goal", "length over `smallest_l2`: median", "smallest", "largest"]]
    lines.append(["---"] * len(lines[0]))
    for case in document["results"]:
        ours = case["lengths"]["smallest_l2"]
        for way, theirs in case["lengths"].items():
            both = [b / a for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
            shown = (statistics.median(both), min(both), max(both)) if both else ()
            met = f"{sum(length is not None for length in theirs)} of {case['pairs']}"
            lines.append([case["map"], way, met, *(f"{value:.4f}" for value in shown), *["-"] * (3 - len(shown))])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
