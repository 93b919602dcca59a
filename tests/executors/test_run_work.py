"""The work of a run: small, found by ids, and refused where results would not be those of the plan."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

import equivengine as eqv
from equivengine.runtime import worker
from equivengine.runtime.config import validated
from equivengine.runtime.engine import execute, plan_of
from equivengine.runtime.registry import Registry
from equivengine.runtime.work import NeededPlugin, work_of
from equivengine.runtime.worker import WorkerContext
from equivengine.store import RunDirectory, open_run


@pytest.fixture
def registry(toys, monkeypatch):
    monkeypatch.setenv("EQUIVENGINE_PLUGINS", "toys,folder,serial,dask")
    return Registry.load(only=["toys", "folder", "serial", "dask"])


@pytest.fixture
def config(photos, tmp_path):
    def make(probe="measure", **options):
        given = {"probes": [{"name": probe}], "models": ["toy"], "images": [f"folder:{photos}"], "device": "cpu"}
        return validated({**given, "out": str(tmp_path / "run"), **options})

    return make


@pytest.fixture
def made(registry, config, monkeypatch):
    """Work of a frozen plan, and the plan."""
    monkeypatch.setattr(worker, "_inputs", {})  # as in a fresh process
    plan, _ = plan_of(config(), registry)
    RunDirectory.create_or_open(config().out, plan.to_json(), plan.digest)
    return work_of(plan, WorkerContext(config().out, "cpu", ()), registry), plan


def test_it_runs_units_by_their_ids_and_is_small(made):
    work, plan = made
    again = pickle.loads(pickle.dumps(work))
    assert len(pickle.dumps(work)) < 2000
    again.check()
    ids = [(unit.unit_id,) for unit in plan.units]
    assert [again(one)[0].outcome for one in ids] == ["published"] * 3
    assert again((plan.units[0],))[0].outcome == "skipped"
    with open_run(work.directory) as run:
        assert run.units()[0].provenance["executor"]["name"] == "serial"


def test_it_names_the_plugins_that_the_plan_needs(made):
    assert [plugin.name for plugin in made[0].plugins] == ["folder", "toys"]


def test_a_failure_is_recorded_with_its_cause_unless_the_unit_is_published(made):
    work, plan = made
    first, second, third = plan.units
    work((first.unit_id,))
    outcomes = work.record_failure((first.unit_id, second.unit_id), "it died", "Signal")
    assert [(one.outcome, one.error_type) for one in outcomes] == [("skipped", ""), ("failed", "Signal")]
    work.record_failure((third,), "it died", "Exit")
    failures = RunDirectory.open(work.directory).failures()
    assert {key: (one.message, one.error_type) for key, one in failures.items()} == {
        second.unit_id: ("it died", "Signal"),
        third.unit_id: ("it died", "Exit"),
    }
    assert failures[second.unit_id].provenance["executor"]["name"] == "serial"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"equivengine_version": "9.9"}, ["another version of equivengine", "equivengine 9.9", "got: equivengine "]),
        (
            {"plugins": (NeededPlugin("toys", "equivengine_toys", "toys", "2.0"),)},
            ["another version of plugin 'toys'", "toys 2.0", "got: toys 1.0"],
        ),
        (
            {"plugins": (NeededPlugin("gabor", "gabor.plugin", "gabor-bank", "0.3"),)},
            ["lacks the plugin 'gabor'", "gabor.plugin, from gabor-bank 0.3", "no plugin of that name"],
        ),
        (
            {"plugins": (NeededPlugin("ldlc", "ldlc", "equivengine", "0.1"),)},
            ["lacks the plugin 'ldlc'", "left out by EQUIVENGINE_PLUGINS"],
        ),
        (
            {"plugins": (NeededPlugin("toys", "toys", "other", "1.0"),)},
            ["has another plugin 'toys'", "from other 1.0", "from toys 1.0"],
        ),
        ({"plan_digest": "0" * 64}, ["sees another run", "plan 000"]),
        ({"working_directory": "/nowhere/at/all"}, ["directory that the command was given in", "/nowhere/at/all"]),
    ],
)
def test_a_worker_that_would_give_other_results_refuses_and_names_itself(made, change, says):
    work = replace(made[0], **change)
    with pytest.raises(eqv.EngineError) as refused:
        work.check()
    import socket

    assert f"the worker on {socket.gethostname()}" in refused.value.what
    for text in says:
        assert text in str(refused.value)


def test_a_worker_that_does_not_see_the_run_says_so(made, tmp_path):
    work = replace(made[0], context=replace(made[0].context, directory=str(tmp_path / "elsewhere")))
    with pytest.raises(eqv.StoreError, match="does not see the run directory"):
        work.check()


def test_parameters_of_the_executor_are_recorded_and_change_no_unit(registry, config, tmp_path):
    first = execute(config(), registry=registry)
    second = execute(config(out=str(tmp_path / "other"), executor_set={"threads": 1}), registry=registry)
    with open_run(first.directory) as one, open_run(second.directory) as two:
        assert one.plan_digest == two.plan_digest
        assert one.plan == two.plan
        assert one.units()[0].provenance["executor"]["set"] == {}
        assert two.units()[0].provenance["executor"]["set"] == {"threads": 1}
        assert two.units()[0].provenance["threads"] == 1


def test_units_in_a_process_of_dask_give_what_they_give_here(registry, config, tmp_path, monkeypatch):
    from equivengine.store import content_digest

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    here = execute(config("together", executor_set={"threads": 1}), registry=registry)
    there = execute(
        config("together", out=str(tmp_path / "there"), executor="dask", executor_set={"workers": 1}), registry=registry
    )
    assert there.outcomes["published"] == 3
    with open_run(here.directory) as one, open_run(there.directory) as two:
        assert content_digest(one) == content_digest(two)
        found = two.units()[0].provenance
    assert (found["executor"]["name"], found["executor"]["set"]) == ("dask", {"workers": 1})
    assert found["threads"] == 1


def test_an_executor_with_wrong_parameters_is_refused_when_it_is_loaded(site):
    site.install(
        "odd",
        """
        import equivengine as eqv

        EQUIVENGINE_API = (1, 0)

        class Odd(eqv.Executor):
            name = "odd"
            Params = dict

        @eqv.hookimpl
        def equivengine_register_executors():
            return [Odd]
        """,
    )
    loaded = Registry.load(only=["odd"])
    (record,) = [one for one in loaded.records if one.name == "odd"]
    assert record.state == "failed"
    assert "Odd.Params has a wrong type; expected a subclass of equivengine.Params" in record.reason
