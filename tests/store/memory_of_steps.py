"""Print how many bytes of memory each further unit adds to steps, as JSON: a process in which nothing else goes on."""

import gc
import json
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

from store_cases import make_unit

from equivengine.contracts.result import ProbeResult, Scalar
from equivengine.contracts.units import UnitList, plan_digest
from equivengine.contracts.units_as_json import units_to_json
from equivengine.store import (
    RunDirectory,
    consolidate,
    digests,
    growing,
    inspect_run,
    open_run,
    run,
    scan,
    schema,
    shard,
)
from equivengine.store import tables as store_tables

IMAGES = 75
SOME, MANY = 2, 6
RESULT = ProbeResult({}, {"a": Scalar(1.5, "1", "A number."), "b": Scalar(0.1, "px", "Another.")})


def use_small_parts():
    """Blocks, chunks and what is read at once are so small that few units fill many of them; no unit is kept."""
    for module in (growing, scan, store_tables):
        module.ROWS = 16
    schema.CHUNK_BYTES = schema.CHUNKED_FROM_BYTES = 4096
    digests._HASH_STEP = 16 << 10
    run.KEPT_UNITS = 0


def made(path, models):
    """A run of `IMAGES` units for each model."""
    units = [replace(make_unit(seed), model=f"m{n}", seed=0) for n in range(models) for seed in range(IMAGES)]
    listed = UnitList.of(units)
    directory = RunDirectory.create_or_open(path, {"config": {}, **units_to_json(listed)}, plan_digest(listed.ids))
    for number in range(256):  # a large run has all folders
        (path / schema.SHARDS / f"{number:02x}").mkdir()
    for unit in units:
        shard.write_shard(path / schema.shard_path(unit.unit_id), unit, RESULT, {})
    directory.consolidate()
    return path


def consolidated(path):
    target = path.parent / "again.h5"
    consolidate.write_run_file(target, path)
    target.unlink()


def verified(path):
    found = inspect_run(path)
    if found.findings or found.outdated:
        raise AssertionError(found)


def opened(path):
    with open_run(path) as found:
        if found.missing or len(found.summary("ldlc")["a"].values) != len(found.published):
            raise AssertionError(found.missing)


def opened_file(path):
    opened(path / "run.h5")


def peak(step, path):
    """Most of Python's memory during a step; what lies in circles is let go of soon, since it comes and goes."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()  # so that each later collection looks at what is made from here on alone
    gc.collect()
    gc.set_threshold(10, 1, 1)
    tracemalloc.start()
    try:
        step(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def least_peak(step, path):
    """Of two times: when h5py lets go of something differs from time to time."""
    return min(peak(step, path) for _ in range(2))


def main(folder):
    use_small_parts()
    some, many = (made(folder / f"of-{models}" / "run", models) for models in (SOME, MANY))
    added = {}
    for step in (consolidated, verified, opened, opened_file):
        step(some)  # what is made once for all
        step(many)
        added[step.__name__] = (least_peak(step, many) - least_peak(step, some)) / ((MANY - SOME) * IMAGES)
    print(json.dumps(added))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
