"""Plans and runs with the toy plugin."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from equivengine import open_run
from equivengine.runtime.config import validated
from equivengine.runtime.engine import plan_of
from equivengine.runtime.registry import Registry


@pytest.fixture
def registry(toys):
    return Registry.load()


@pytest.fixture
def toy_module(toys):
    """The module of the toy plugin, to be changed with monkeypatch."""
    import equivengine_toys

    return equivengine_toys


@pytest.fixture
def make_config(photos, tmp_path):
    """A configuration of one probe, the toy model and three photos, for a directory ``run``."""

    def make(probe="measure", settings=None, **options):
        given = {"probes": [{"name": probe, "set": settings or {}}], "models": ["toy"], "images": [f"folder:{photos}"]}
        return validated({**given, "out": str(tmp_path / "run"), **options})

    return make


@pytest.fixture
def make_plan(registry, make_config):
    """The plan of `make_config`."""
    return lambda *arguments, **options: plan_of(make_config(*arguments, **options), registry)[0]


@pytest.fixture
def content():
    """All numbers and words that a run holds, by unit."""

    def read(path):
        with open_run(path) as run:
            return {
                record.unit_id: (record.summary, {name: array.data.tolist() for name, array in record.arrays.items()})
                for record in run.units()
            }

    return read


@pytest.fixture
def version_1():
    """A plan as version 1 has it: units stand one by one; those with references carry their ids."""

    def written(plan):
        populations, units = {}, []
        for unit in plan.units:
            entry = replace(unit, references=()).to_json()
            if unit.references:
                entry["references"] = populations.setdefault(unit.references, len(populations))
                entry["unit_id"] = unit.unit_id
            units.append(entry)
        data = {"version": 1, "config": plan.to_json()["config"], "units": units}
        if populations:
            data["references"] = [[sample.to_json() for sample in population] for population in populations]
        if plan.batch_sizes:
            data["batches"] = [size for size, times in plan.batch_sizes for _ in range(times)]
        return json.loads(json.dumps(data))

    return written
