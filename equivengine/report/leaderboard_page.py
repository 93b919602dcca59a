"""The page and the table of a leaderboard."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import equivengine
from equivengine.report import templates
from equivengine.report.standings import Entry, Leaderboard, Standing
from equivengine.report.tables import Column, Table
from equivengine.store import atomic

#: Values of a column that span less than this ratio stand on a linear axis.
DECADE = 10.0
#: What is said of a column of shares.
SHARE = "; share of yes"


@dataclass(frozen=True)
class Place:
    """Where a number and its interval lie on the axis of its column, 0 to 1; None where there is none."""

    at: float | None = None
    low: float | None = None
    high: float | None = None


def write_page(board: Leaderboard, remarks: Sequence[str], path: Path) -> None:
    """Write the page; one small program in it sorts the table, and its digest is all that the page lets run.

    Args:
        board: What to show.
        remarks: What probes had no answer to.
        path: The file; replaced if it is there.

    Raises:
        StoreError: If it cannot be written.
    """
    script = files(templates).joinpath("sort.js").read_text(encoding="utf-8")
    columns = [[row.entries[place] for row in board.rows] for place in range(len(board.metrics))]
    axes = [_places(column) for column in columns]
    kinds = [
        (kind, list(metrics))
        for kind, metrics in groupby(board.metrics, lambda m: (m.probe, m.version, m.setting, m.params))
    ]
    page = templates.render(
        "leaderboard.html",
        board=board,
        remarks=list(remarks),
        places=[[axis[row][0] for axis in axes] for row in range(len(board.rows))],
        logarithmic=[bool(axis) and axis[0][1] for axis in axes],
        kinds=kinds,
        settings=[_settings(params) for (*_, params), _ in kinds],
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        version=equivengine.__version__,
    )
    atomic.make_directory(path.parent)
    atomic.publish_text(path, page, overwrite=True)


def table_of(board: Leaderboard) -> Table:
    """A row for each model; nine columns for each metric, of which the last says why there is no number."""
    columns = [
        Column("model", "text", "", "model"),
        Column("weights_digest", "text", "", "sha256 of the weights"),
        Column("random_weights", "flag", "", "whether the weights are random"),
        Column("reference_path", "flag", "", "some unit ran without kernels"),
        Column("embedding_dim", "integer", "", "dimension of the embedding"),
        Column("input_dim", "integer", "", "numbers of one input"),
        Column("runs", "text", "", "paths of the runs, a JSON list"),
    ]
    for metric in board.metrics:
        key = metric.key
        columns += [
            Column(key, "number", metric.unit, f"{metric.probe}: {metric.description}{SHARE * metric.share}"),
            Column(f"{key}.low", "number", metric.unit, "lower end of the interval"),
            Column(f"{key}.high", "number", metric.unit, "upper end of the interval"),
            Column(f"{key}.interval", "text", "", "95%, min .. max or measurement"),
            Column(f"{key}.n", "integer", "", "images, or observations of one unit"),
            Column(f"{key}.units", "integer", "", "units behind it"),
            Column(f"{key}.not_converged", "integer", "", "that did not converge"),
            Column(f"{key}.failed", "integer", "", "further units that failed"),
            Column(f"{key}.why", "text", "", "why there is no value"),
        ]
    return Table("leaderboard", columns, [_cells(row) for row in board.rows])


def _cells(row: Standing) -> list[Any]:
    cells: list[Any] = [row.model, row.weights_digest, row.random, row.reference_path]
    cells += [*(row.size or (None, None)), json.dumps(list(row.runs))]
    for entry in row.entries:
        cells += [entry.value, *(entry.interval or (None, None)), entry.kind or None, entry.n]
        cells += [entry.units, entry.not_converged, entry.failed, entry.why or None]
    return cells


def _places(entries: Sequence[Entry]) -> list[tuple[Place, bool]]:
    """Where each number lies, and whether the axis is logarithmic; of one in another unit than the first, nowhere."""
    unit = next((e.unit for e in entries if e.value is not None), "")
    shown = [e for e in entries if e.value is not None and e.unit == unit]
    ends = [end for e in shown for end in (e.value, *(e.interval or ())) if end is not None and math.isfinite(end)]
    if not ends:
        return [(Place(), False) for _ in entries]
    low, high = min(ends), max(ends)
    logarithmic = low > 0 and high >= DECADE * low

    def place(value: float | None) -> float | None:
        if value is None or not math.isfinite(value):
            return None
        if high == low:
            return 0.5
        return math.log(value / low) / math.log(high / low) if logarithmic else (value - low) / (high - low)

    def lies(entry: Entry) -> Place:
        if entry.unit != unit:
            return Place()
        return Place(place(entry.value), *((None, None) if entry.interval is None else map(place, entry.interval)))

    return [(lies(entry), logarithmic) for entry in entries]


def _settings(params: str) -> str:
    """Parameters that are set; the others are what the probe chooses."""
    given = json.loads(params).items()
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in given if value is not None)
