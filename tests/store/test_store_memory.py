"""What a run takes in memory does not grow with its units but by their ids: of the rest, some are there at a time."""

import gc
import tracemalloc
from dataclasses import replace

import pytest
from store_cases import make_unit

from equivengine.contracts.result import ProbeResult, Scalar
from equivengine.contracts.units import UnitList, plan_digest
from equivengine.contracts.units_as_json import units_to_json
from equivengine.store import (
    RunDirectory,
    consolidate,
    digests,
    growing,
    guard,
    inspect_run,
    open_run,
    run,
    scan,
    schema,
    shard,
)
from equivengine.store import tables as store_tables
from equivengine.store.files import new_file

IMAGES = 75
RESULT = ProbeResult({}, {"a": Scalar(1.5, "1", "A number."), "b": Scalar(0.1, "px", "Another.")})
#: Bytes of memory that a unit may add: its id of 32 bytes in four lists, and what the plan says of it.
MOST = 150


@pytest.fixture(scope="module")
def small_parts():
    """Blocks, chunks and what is read at once are so small that few units fill many of them; no unit is kept."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (growing, scan, store_tables):
            patched.setattr(module, "ROWS", 16)
        patched.setattr(schema, "CHUNK_BYTES", 4096)
        patched.setattr(schema, "CHUNKED_FROM_BYTES", 4096)
        patched.setattr(digests, "_HASH_STEP", 16 << 10)
        patched.setattr(run, "KEPT_UNITS", 0)
        yield


@pytest.fixture(scope="module")
def directories(tmp_path_factory, small_parts):
    """Runs of so many units, by their number: images times models."""
    made = {}
    for models in (1, 2, 4):
        units = [replace(make_unit(seed), model=f"m{n}", seed=0) for n in range(models) for seed in range(IMAGES)]
        listed = UnitList.of(units)
        path = tmp_path_factory.mktemp(f"of-{models}") / "run"
        directory = RunDirectory.create_or_open(path, {"config": {}, **units_to_json(listed)}, plan_digest(listed.ids))
        for number in range(256):  # a large run has all folders
            (path / schema.SHARDS / f"{number:02x}").mkdir()
        for unit in units:
            shard.write_shard(path / schema.shard_path(unit.unit_id), unit, RESULT, {})
        directory.consolidate()
        made[len(units)] = path
    return made


def consolidated(path):
    target = path.parent / "again.h5"
    consolidate.write_run_file(target, path)
    target.unlink()


def verified(path):
    found = inspect_run(path)
    assert not found.findings
    assert not found.outdated


def opened(path):
    with open_run(path) as found:
        assert not found.missing
        assert len(found.summary("ldlc")["a"].values) == len(found.published)


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


@pytest.mark.parametrize(
    ("step", "file", "scalars"),
    [(consolidated, "", 0), (verified, "", 0), (opened, "", 2), (opened, "run.h5", 2)],
    ids=["consolidate", "verify", "open the directory", "open run.h5"],
)
def test_a_unit_adds_its_ids(step, file, scalars, directories):
    few, some, many = directories
    step(directories[few] / file)  # what is made once for all

    def added():
        before, after = (peak(step, directories[count] / file) for count in (some, many))
        return (after - before) / (many - some)

    columns = scalars * 32  # value, both ends of its interval, number of observations
    # the second time counts where something else was made for the first time meanwhile
    assert any(added() < MOST + columns for _ in range(2))


def test_hdf5_keeps_little_of_a_file_of_many_units(directories, tmp_path):
    (*_, path) = directories.values()
    most = 256 << 10
    with guard.open_untrusted(path / "run.h5", schema.RUN_FORMAT) as file:
        assert file.id.get_mdc_size()[0] <= most
    with new_file(tmp_path / "made.h5", schema.RUN_FORMAT) as file:
        assert file.id.get_mdc_size()[0] <= most
