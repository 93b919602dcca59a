"""Where results live: write-once HDF5 shards, published atomically, and the consolidated ``run.h5``.

`RunDirectory` writes, `open_run` reads, `inspect_run` checks. ``docs/format.md`` describes the files.
"""

from __future__ import annotations

from equivengine.store.aside import SetAside, set_aside
from equivengine.store.content import content_digest, unit_digests
from equivengine.store.directory import RunDirectory
from equivengine.store.run import Failure, Run, ScalarColumn, StoredArray, UnitRecord, open_run
from equivengine.store.verify import Finding, Inspection, inspect_run, verify_run

__all__ = [
    "Failure",
    "Finding",
    "Inspection",
    "Run",
    "RunDirectory",
    "ScalarColumn",
    "SetAside",
    "StoredArray",
    "UnitRecord",
    "content_digest",
    "inspect_run",
    "open_run",
    "set_aside",
    "unit_digests",
    "verify_run",
]
