import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from store_cases import make_plan, make_result, make_unit

from equivengine.store import RunDirectory

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def directory(tmp_path):
    return RunDirectory.create_or_open(tmp_path / "run", make_plan(), "digest")


@pytest.fixture
def shard_of(directory):
    """Publish a unit and return the path of its shard."""

    def publish(seed=0, **options):
        unit = make_unit(seed)
        assert directory.publish(unit, make_result(seed, **options), {"host": "here"})
        return directory.path / "shards" / unit.unit_id[:2] / f"{unit.unit_id}.h5"

    return publish


@pytest.fixture
def shard(shard_of):
    """The shard of a unit whose arrays have chunks."""
    return shard_of(size=3000)


@pytest.fixture
def older(tmp_path):
    """The directory of a run that format 1.2 wrote, with the shard of the same unit."""
    return shutil.copytree(ROOT / "tests" / "archives" / "v1.2", tmp_path / "older")


@pytest.fixture
def older_shard(older):
    (path,) = older.glob("shards/*/*.h5")
    return path


@pytest.fixture
def start_python():
    """Start a Python process that has this folder's ``make_unit`` and ``make_result``; ended with the test."""
    started = []

    def start(code, *arguments):
        paths = [str(Path(__file__).parent), str(ROOT), str(ROOT / "plugins")]
        prelude = (
            "import sys; from store_cases import make_plan, make_result, make_unit; "
            "from equivengine.store import RunDirectory\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", prelude + code, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
