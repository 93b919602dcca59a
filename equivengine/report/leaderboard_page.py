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

import equivengine
from equivengine.report import templates
from equivengine.report.standings import Entry, Leaderboard
from equivengine.report.tables import Column, Table
from equivengine.store import atomic

#: Values of a column that span less than this ratio stand on a linear axis.
DECADE = 10.0


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
    """A row for each model; five columns for each metric, of which the last says why there is no number."""
    rows = board.rows
    columns = [
        Column("model", "text", [row.model for row in rows], "", "model"),
        Column("weights_digest", "text", [row.weights_digest for row in rows], "", "sha256 of the weights"),
        Column("random_weights", "flag", [row.random for row in rows], "", "whether the weights are random"),
        Column("reference_path", "flag", [row.reference_path for row in rows], "", "some unit ran without kernels"),
        Column(
            "embedding_dim", "integer", [row.size and row.size[0] for row in rows], "", "dimension of the embedding"
        ),
        Column("input_dim", "integer", [row.size and row.size[1] for row in rows], "", "numbers of one input"),
        Column("runs", "text", [json.dumps(list(row.runs)) for row in rows], "", "paths of the runs, a JSON list"),
    ]
    for place, metric in enumerate(board.metrics):
        entries = [row.entries[place] for row in rows]
        key, said = metric.key, f"{metric.probe}: {metric.description}"
        ends = [entry.interval or (None, None) for entry in entries]
        columns += [
            Column(key, "number", [entry.value for entry in entries], metric.unit, said),
            Column(f"{key}.low", "number", [low for low, _ in ends], metric.unit, "lower end of the interval"),
            Column(f"{key}.high", "number", [high for _, high in ends], metric.unit, "upper end of the interval"),
            Column(f"{key}.interval", "text", [e.kind or None for e in entries], "", "95%, min .. max or measurement"),
            Column(f"{key}.n", "integer", [entry.n for entry in entries], "", "images, or observations of one unit"),
            Column(f"{key}.units", "integer", [entry.units for entry in entries], "", "units behind it"),
            Column(f"{key}.not_converged", "integer", [e.not_converged for e in entries], "", "that did not converge"),
            Column(f"{key}.failed", "integer", [entry.failed for entry in entries], "", "further units that failed"),
            Column(f"{key}.why", "text", [entry.why or None for entry in entries], "", "why there is no value"),
        ]
    return Table("leaderboard", columns)


def _places(entries: Sequence[Entry]) -> list[tuple[Place, bool]]:
    """Where each number lies, and whether the axis is logarithmic."""
    ends = [end for e in entries if e.value is not None for end in (e.value, *(e.interval or ())) if math.isfinite(end)]
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

    return [
        (Place(place(e.value), *((None, None) if e.interval is None else map(place, e.interval))), logarithmic)
        for e in entries
    ]


def _settings(params: str) -> str:
    """Parameters that are set; the others are what the probe chooses."""
    given = json.loads(params).items()
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in given if value is not None)
