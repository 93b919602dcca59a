"""Where results live: write-once HDF5 shards, published atomically, and the consolidated ``run.h5``.

`RunDirectory` writes, `open_run` reads, `verify_run` checks. ``docs/format.md`` describes the files.
"""

from __future__ import annotations

from equivengine.store.directory import RunDirectory
from equivengine.store.run import Failure, Run, ScalarColumn, UnitRecord, open_run
from equivengine.store.verify import verify_run

__all__ = ["Failure", "Run", "RunDirectory", "ScalarColumn", "UnitRecord", "open_run", "verify_run"]
