"""The registry in itself; what users see of it is tested through the command line."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import pytest

import equivengine as eqv
from equivengine.errors import PluginError, UsageError
from equivengine.runtime.records import suggest
from equivengine.runtime.registry import Registry, from_environment, installed

OBSERVER = """
import equivengine as eqv
EQUIVENGINE_API = (1, 0)
SEEN = []
@eqv.hookimpl
def equivengine_run_finished(outcomes):
    SEEN.append(outcomes)
    if outcomes.get("raise"):
        raise {error}
"""


def test_all_that_we_ship_is_loaded_and_nothing_is_listed_anywhere_but_in_the_metadata():
    records = {record.name: record for record in Registry.load().records}
    shipped = {entry.name for entry in entry_points(group="equivengine") if entry.dist.name == "equivengine"}
    assert shipped <= set(records)
    assert {name for name in shipped if records[name].state != "loaded"} == set()


def test_records_are_in_order_and_know_what_each_brought(toys):
    registry = Registry.load()
    names = [record.name for record in registry.records]
    assert names == sorted(names)
    record = next(record for record in registry.records if record.name == "toys")
    assert record.provides["probes"] == ["measure", "difference", "spread", "together", "named"]
    assert record.provides["backends"] == ["toy"]
    assert (record.distribution, record.version) == ("toys", "1.0")
    assert record.seconds > 0


def test_lookups_return_the_class_and_its_owner(toys):
    registry = Registry.load()
    cls, owner = registry.probe("measure")
    assert issubclass(cls, eqv.Probe)
    assert owner.owner == "plugin 'toys' (equivengine_toys, from toys 1.0)"
    with pytest.raises(UsageError, match="perhaps 'measure'"):
        registry.probe("measures")


def test_a_given_list_of_entry_points_is_all_there_is(toys):
    entry = EntryPoint("mine", "equivengine_toys", "equivengine")
    registry = Registry.load(entries=[entry])
    assert [(r.name, r.state, r.distribution) for r in registry.records] == [("mine", "loaded", "unknown distribution")]


def test_one_module_under_two_names_is_loaded_once(toys):
    toys.install("toys_again", module="equivengine_toys")
    registry = Registry.load()
    states = {r.name: r.state for r in registry.records}
    assert (states["toys"], states["toys_again"]) == ("loaded", "failed")
    registry.probe("measure")


def test_only_and_blocked(toys):
    registry = Registry.load(only=["toys"])
    assert registry.datasets.names() == []
    assert registry.probes.names() == ["difference", "measure", "named", "spread", "together"]
    assert Registry.load(only=["toys"], blocked=["toys"]).probes.names() == []
    with pytest.raises(UsageError, match="'nobody'"):
        Registry.load(blocked=["nobody"])


@pytest.mark.parametrize(
    ("value", "loaded"), [("", set()), (" , ", set()), ("toys", {"toys"}), ("serial ,toys,", {"serial", "toys"})]
)
def test_the_environment_variable(toys, value, loaded):
    records = from_environment(environ={"EQUIVENGINE_PLUGINS": value}).records
    assert {r.name for r in records if r.state == "loaded"} == loaded
    assert any(r.state == "loaded" for r in from_environment(environ={}).records)


def test_installed_imports_nothing(toys):
    toys.install("explosive", "raise SystemExit")
    assert "explosive" in {record.name for record in installed()}


@pytest.mark.parametrize("error", ["ValueError('bad')", "SystemExit('bad')"])
def test_each_observer_is_called_although_another_raises(site, error):
    site.install("first", OBSERVER.format(error=error))
    site.install("second", OBSERVER.format(error=error))
    registry = Registry.load(only=["first", "second"])
    problems = registry.hook("equivengine_run_finished", run_directory="x", outcomes={"raise": True})
    assert [problem.split()[1] for problem in problems] == ["'first'", "'second'"]
    assert registry.hook("equivengine_run_finished", run_directory="x", outcomes={}) == []
    import plugin_second

    assert len(plugin_second.SEEN) == 2


def test_ctrl_c_in_a_plugin_is_the_users_and_not_a_fault(site):
    site.install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry.load()


def test_a_plugin_that_fails_after_registering_one_kind_leaves_nothing_behind(site):
    site.install(
        "half",
        """
        import equivengine as eqv
        EQUIVENGINE_API = (1, 0)
        class Fine(eqv.Executor):
            name = "fine"
        @eqv.hookimpl
        def equivengine_register_backends():
            return []
        @eqv.hookimpl
        def equivengine_register_executors():
            return [Fine, int]
        @eqv.hookimpl
        def equivengine_run_finished():
            raise AssertionError("called although it was refused")
        """,
    )
    registry = Registry.load(only=["half"])
    assert registry.executors.names() == []
    assert registry.records[0].provides == {}
    assert registry.hook("equivengine_run_finished", run_directory="", outcomes={}) == []
    with pytest.raises(PluginError, match="not loaded"):
        registry.executor("half")


def test_suggest_names_what_is_close_or_all_or_nothing():
    assert suggest("ldcl", ["ldlc", "spectrum"]) == "perhaps 'ldlc'"
    assert suggest("xyz", ["ldlc", "spectrum"]) == "ldlc, spectrum"
    assert suggest("xyz", []) == "nothing: none is there"
