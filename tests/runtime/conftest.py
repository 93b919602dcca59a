"""Plans and runs with the toy plugin."""

from __future__ import annotations

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
