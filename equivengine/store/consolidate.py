"""Gather a run directory in one file, with tables that plain h5py shows at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from equivengine.contracts.result import Scalar
from equivengine.contracts.unit import Unit
from equivengine.store import elements, guard, layout, schema, shard


def write_run_file(path: Path, root: Path) -> dict[str, str]:
    """Write ``run.h5`` of the run directory ``root`` to ``path``, and read it back.

    Every shard is held against its digest: what is damaged does not get a new one.

    Returns:
        Digests of the shards that it was made from, by unit id.

    Raises:
        OSError: If it cannot be written.
        StoreError: If a shard, a failure or the plan is damaged.
    """
    stored = layout.read_plan(root)
    shards = layout.find_units(root)
    failures = layout.read_failures(root, shards)
    rows: list[_Row] = []
    first: dict[tuple[str, str], Scalar] = {}
    with shard.new_file(path, schema.RUN_FORMAT) as file:
        plan = elements.write_text(file, "plan", schema.to_json(stored.plan, "the plan"), "json")
        elements.set_text(plan, "digest", stored.digest)
        tables = elements.new_group(file, "summary", "summaries")
        units = elements.new_group(file, "units", "units")
        for unit_id in layout.in_plan_order(stored.plan, shards):
            with guard.open_untrusted(root / shards[unit_id], schema.SHARD_FORMAT, check=True) as source:
                group = guard.group(guard.group(source, "units"), unit_id)
                shard.copy_unit(group, units)
                rows.append(_Row(unit_id, group, first))
        for probe in dict.fromkeys(row.unit.probe for row in rows):
            scalars = {name: scalar for (owner, name), scalar in first.items() if owner == probe}
            table = elements.new_group(tables, probe, "summary-table")
            _write_table(table, [row for row in rows if row.unit.probe == probe], scalars)
        kept = elements.new_group(file, "failures", "failures")
        for unit_id in layout.in_plan_order(stored.plan, failures):
            elements.write_text(kept, unit_id, schema.sealed_json(failures[unit_id].to_json(), "a failure"), "json")
        digests = _write_manifest(elements.new_group(file, "manifest", "manifest"), root, shards)
    with guard.open_untrusted(path, schema.RUN_FORMAT, check=True) as file:
        found = guard.names(guard.group(file, "units"), schema.MAX_UNITS)
        if found != [row.unit_id for row in rows]:
            raise guard.Refused(f"{len(found)} units", f"{len(rows)} units")
    return digests


class _Row:
    """One unit of a table; the first scalar of each probe and name is kept in ``first``, for what all share."""

    def __init__(self, unit_id: str, group: h5py.Group, first: dict[tuple[str, str], Scalar]) -> None:
        self.unit_id = unit_id
        self.unit: Unit = schema.parse_unit(elements.read_json(group, "unit"), f"unit {unit_id}")
        self.status = elements.read_text(group, "status")
        summary = guard.group(group, "summary")
        self.values = {name: elements.read_value(summary, name) for name in guard.names(summary)}
        for name in self.values:
            if (self.unit.probe, name) not in first:
                first[self.unit.probe, name] = elements.read_scalar(summary, name)


def _write_table(table: h5py.Group, rows: list[_Row], scalars: Mapping[str, Scalar]) -> None:
    """Columns over the units of one probe: scalars as float64 (NaN where a unit lacks one), and who they belong to."""
    columns: dict[str, Any] = {
        "unit_id": np.array([row.unit_id for row in rows]),
        "model": np.array([row.unit.model for row in rows]),
        "sample": np.array([sample_text(row.unit) for row in rows]),
        "status": np.array([row.status for row in rows]),
    }
    for name in scalars:
        columns[name] = np.array([row.values.get(name, np.nan) for row in rows])
    _write_columns(table, columns, "unit")
    for name, scalar in scalars.items():
        for key in ("unit", "description", "group"):
            elements.set_text(table[name], key, getattr(scalar, key))


def sample_text(unit: Unit) -> str:
    """The ids of a unit's samples; of a set only the first (the unit itself holds all)."""
    ids = [sample.id for sample in unit.samples]
    return " | ".join(ids) if len(ids) <= 3 else f"{' | '.join(ids[:3])} | ... ({len(ids)})"


def _write_manifest(manifest: h5py.Group, root: Path, shards: Mapping[str, str]) -> dict[str, str]:
    """Digest and size of the shard that each unit was read from; returns the digests."""
    files = {relative: (guard.sha256_of(root / relative), (root / relative).stat().st_size) for relative in
             dict.fromkeys(shards.values())}  # fmt: skip
    columns = {
        "unit_id": np.array(list(shards), dtype=str),
        "shard": np.array(list(shards.values()), dtype=str),
        "sha256": np.array([files[relative][0] for relative in shards.values()], dtype=str),
        "size": np.array([files[relative][1] for relative in shards.values()], dtype=np.int64),
    }
    _write_columns(manifest, columns, "entry")
    return dict(zip(shards, columns["sha256"].tolist(), strict=True))


def _write_columns(group: h5py.Group, columns: Mapping[str, np.ndarray], dim: str) -> None:
    for name, values in columns.items():
        elements.write_values(group, name, values, "column")
    elements.write_dimensions(group, {dim: len(next(iter(columns.values())))})
    for name in columns:
        elements.attach(group, name, (dim,))
