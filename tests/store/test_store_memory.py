"""What a run takes in memory does not grow with its units but by their ids: of the rest, some are there at a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from store_cases import make_plan, make_result, make_unit

from equivengine.store import RunDirectory, guard, schema
from equivengine.store.files import new_file

#: Bytes of memory that a unit may add: its id of 32 bytes, 8 to find it by, what the plan says of it, and little else.
MOST = 100
#: Of a scalar of which all values are asked for: value, both ends of its interval, number of observations.
COLUMN = 4 * 8


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """Bytes that each further unit adds, by step."""
    script = Path(__file__).with_name("memory_of_steps.py")
    found = subprocess.run(
        [sys.executable, script, tmp_path_factory.mktemp("memory")], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.parametrize(("step", "scalars"), [("consolidated", 0), ("verified", 0), ("opened", 2), ("opened_file", 2)])
def test_a_unit_adds_its_ids(step, scalars, added):
    assert added[step] < MOST + scalars * COLUMN


def test_hdf5_keeps_little_of_a_file_of_many_units(tmp_path):
    most = 256 << 10
    directory = RunDirectory.create_or_open(tmp_path / "run", make_plan(1), "digest")
    directory.publish(make_unit(), make_result(), {})
    with guard.open_untrusted(directory.consolidate(), schema.RUN_FORMAT) as file:
        assert file.id.get_mdc_size()[0] <= most
    with new_file(tmp_path / "made.h5", schema.RUN_FORMAT) as file:
        assert file.id.get_mdc_size()[0] <= most
