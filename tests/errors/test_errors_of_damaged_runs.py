"""Runs that a disk, a tool or somebody else has changed: `show`, `verify` and `resume` name the file and the fault."""

from __future__ import annotations

import builtins
import dataclasses
import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from damaged_runs import RUN_FILES, UNIT, attribute, edit, replaced

from equivengine.errors import EngineError
from equivengine.store import open_run, schema

ARCHIVES = Path(__file__).parents[1] / "archives"


SLOPE = f"{UNIT}/summary/slope"


@pytest.fixture
def older(tmp_path):
    """A copy of a run that format 1.2 wrote, in the working directory."""
    return shutil.copytree(ARCHIVES / "v1.2", tmp_path / "older")


@pytest.mark.parametrize("change", RUN_FILES)
def test_a_run_file_that_was_changed(refused, run, change):
    edit(run / "run.h5", RUN_FILES[change])
    assert "run.h5" in refused("show", "run/run.h5", code=1)


OLDER_FILES = {
    "one-float": replaced("summary/slope", "scalar", data=np.zeros(3)),
    "status": replaced("status", "string", data=np.bytes_("perhaps")),
    "interval": attribute(SLOPE, "interval", np.zeros(3)),
    "count": attribute(SLOPE, "n", 0.5),
    "bound": attribute(f"{UNIT}/checks/monotone", "bound", np.int64(1)),
    "large-attribute": attribute(SLOPE, "description", np.zeros(schema.MAX_ATTRIBUTE_BYTES + 1, "S1")),
}


@pytest.mark.parametrize("change", OLDER_FILES)
def test_a_run_file_of_format_1_that_was_changed(refused, older, change):
    edit(older / "run.h5", OLDER_FILES[change])
    assert "run.h5" in refused("show", "older/run.h5", code=1)


PLANS = {
    "no-object": '{"digest":"d","format":"equivengine-plan","format_version":"1.0","plan":3}',
    "no-digest": '{"digest":3,"format":"equivengine-plan","format_version":"1.0","plan":{"units":[]}}',
    "no-unit": '{"digest":"d","format":"equivengine-plan","format_version":"1.0","plan":{"units":[3]}}',
    "half-a-unit": '{"digest":"d","format":"equivengine-plan","format_version":"1.0","plan":{"units":[{"probe":"a"}]}}',
}


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_that_was_changed(refused, run, plan):
    (run / "plan.json").write_text(PLANS[plan])
    assert "plan.json" in refused("show", "run", code=1)


def test_a_plan_with_spaces_in_it(refused, run):
    (run / "plan.json").write_text((run / "plan.json").read_text().replace(",", ", "))
    assert "plan.json" in refused("verify", "run", code=1, block=False)


def test_a_plan_of_a_size_that_no_plan_has(refused, run):
    with open(run / "plan.json", "r+b") as file:
        file.truncate(schema.MAX_JSON_FILE_BYTES + 1)
    assert "plan.json" in refused("show", "run", code=1)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "change its permissions"),
        (MemoryError(), "too little memory"),
    ],
    ids=["permissions", "memory"],
)
def test_a_plan_that_the_system_does_not_let_one_read(refused, run, monkeypatch, error, says):
    opened = builtins.open

    def refuse(path, *arguments, **options):
        if str(path).endswith("plan.json"):
            raise error
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", refuse)
        patch.setattr("equivengine.store.layout.open", refuse, raising=False)
        patch.setattr(type(run), "read_text", lambda path, *a, **k: refuse(path).read())
        patch.setattr(type(run), "read_bytes", lambda path, *a, **k: refuse(path, "rb").read())
        with pytest.raises(EngineError, match=says):
            open_run(run)


def test_an_array_that_changed_after_it_was_opened(run):
    with open_run(run / "run.h5") as opened:
        (record,) = opened.units()
        stored = dataclasses.replace(record.arrays.open("zeta"), shape=(1, 1))
        with pytest.raises(EngineError, match="not safe to read"):
            stored[:]


def test_results_of_a_probe_that_did_not_run(run):
    with open_run(run) as opened, pytest.raises(EngineError, match="no results of probe 'lcld'"):
        opened.results("lcld")


def test_a_plan_with_an_id_that_has_no_text():
    with pytest.raises(EngineError, match="the plan is damaged"):
        schema.plan_units({"units": [{"unit_id": 10**5000}]})
