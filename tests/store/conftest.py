import os
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
