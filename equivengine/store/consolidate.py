"""Gather a run directory in one file, with tables that plain h5py shows at a glance."""

from __future__ import annotations

from pathlib import Path

import h5py

from equivengine.contracts.units import UnitIds
from equivengine.store import elements, files, guard, layout, refusal, schema, shard, units
from equivengine.store.growing import Overflow
from equivengine.store.shards import in_order, path_of
from equivengine.store.tables import Manifest, Tables


def write_run_file(path: Path, root: Path) -> UnitIds:
    """Write ``run.h5`` of the run directory ``root`` to ``path``, and read it back.

    Every shard is held against its digest: what is damaged does not get a new one. One unit is in memory at a time; of
    the others, their ids are.

    Returns:
        Ids of the units, in order.

    Raises:
        OSError: If it cannot be written.
        StoreError: If a shard, a failure or the plan is damaged.
    """
    stored = layout.read_plan(root)
    planned = stored.unit_ids
    shards = layout.find_planned(root, planned)
    failures = layout.read_failures(root, shards)
    order, packed = shards.in_order(), shards.packed
    failed = in_order(planned, failures)
    del shards
    with Overflow(path.parent) as overflow, files.new_file(path, schema.RUN_FORMAT) as file:
        tables, manifest = Tables(order, overflow), Manifest(order, overflow)
        plan = elements.write_text(file, "plan", schema.to_json(stored.plan, "the plan"), "json")
        elements.set_text(plan, "digest", stored.digest)
        del stored, planned  # what it says of each unit takes more than all that is kept of it below
        summary = elements.new_group(file, "summary", "summaries")
        group = elements.new_group(file, "units", "units")
        for unit_id in order:
            _copy(root, path_of(unit_id, packed), unit_id, group, tables, manifest)
        tables.write(summary)
        kept = elements.new_group(file, "failures", "failures")
        for unit_id in failed:
            elements.write_text(kept, unit_id, schema.sealed_json(failures[unit_id].to_json(), "a failure"), "json")
        manifest.write(elements.new_group(file, "manifest", "manifest"))
    with guard.open_untrusted(path, schema.RUN_FORMAT, check=True) as file:
        found = units.ids_in(guard.group(file, "units"), order)
        if found is not order:
            raise refusal.Refused(f"{len(found)} units", f"{len(order)} units")
    return order


def _copy(root: Path, path: str, unit_id: str, group: h5py.Group, tables: Tables, manifest: Manifest) -> None:
    with guard.open_once(root / path, schema.SHARD_FORMAT) as (source, digest, size):
        structure = shard.structure_written(digest)
        if structure is None:
            record = units.copy_unit(guard.group(guard.group(source, "units"), unit_id), group, unit_id)
        else:
            record = units.copy_own_unit(source, group, unit_id, structure)
    tables.append(record)
    manifest.append(path, digest, size)
