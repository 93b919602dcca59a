"""`equivengine plugin check` names the defect of every broken plugin, and survives all of them."""

from __future__ import annotations

import json
import sys

import pytest
from broken_plugins import DATASET_FAULTS, DOZEN, FAULTS, LOST, PROBE_FAULTS
from sound_plugins import BACKEND, DATASET, PROBE

from equivengine.cli import plugin_worker
from equivengine.cli.plugin_worker import Request
from equivengine.testing.verdict import Verdict


@pytest.fixture
def verdicts(site):
    """Install a plugin, and check it in this process: all that `plugin check` does but the process around it."""

    def check(name: str, source: str, **options) -> dict[str, Verdict]:
        site.install(name, source.replace("NAME", name), distribution=f"broken_{name}")
        found = []
        plugin_worker.check(Request(name, **options), lambda event: found.append(json.loads(json.dumps(event))))
        assert found[-1] == {"event": "end"}
        told = [Verdict(**event["verdict"]) for event in found if event["event"] == "verdict"]
        assert len({verdict.name for verdict in told}) == len(told)
        return {verdict.name: verdict for verdict in told}

    yield check
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:  # what a broken plugin has left open
        pyplot.close("all")


def failures(found: dict[str, Verdict]) -> list[str]:
    return [name for name, verdict in found.items() if verdict.state == "failed"]


def explained(verdict: Verdict) -> str:
    return f"{verdict.what}\n{verdict.expected}\n{verdict.got}\n{verdict.hint}"


@pytest.mark.parametrize("source", [BACKEND, PROBE, DATASET])
def test_the_plugins_that_faults_are_put_into_are_sound(verdicts, source):
    assert failures(verdicts("sound", source)) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_the_defect_of_a_backend_is_named(verdicts, fault):
    found = verdicts(fault, FAULTS[fault].source)
    assert FAULTS[fault].requirement in failures(found)
    verdict = found[FAULTS[fault].requirement]
    for words in FAULTS[fault].says:
        assert words in explained(verdict)
    if FAULTS[fault].masked:  # the engine makes good for it: only a look at the module itself finds it
        assert found["is_accepted"].state == "passed"
        # What follows from a fault may fail too, but nothing that does not have to do with it.
        assert len(failures(found)) <= 3


def test_the_dozen_of_the_issue_is_there():
    assert len(DOZEN) == 12
    assert DOZEN[-1] == "exits_at_import"


@pytest.mark.parametrize("fault", PROBE_FAULTS)
def test_the_defect_of_a_probe_is_named(verdicts, fault, request):
    import torch

    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    source, requirement = PROBE_FAULTS[fault]
    found = verdicts(fault, source)
    assert requirement in failures(found), failures(found)
    assert found[requirement].what


@pytest.mark.parametrize("fault", DATASET_FAULTS)
def test_the_defect_of_an_image_set_is_named(verdicts, fault):
    source, requirement = DATASET_FAULTS[fault]
    found = verdicts(fault, source)
    assert requirement in failures(found), failures(found)
    assert found[requirement].what


def test_a_name_that_another_plugin_has_is_named(verdicts):
    source = BACKEND.replace('name = "NAME"', 'name = "digits"').replace('("NAME",)', '("digits",)')
    verdict = verdicts("mine", source)["names_are_free"]
    assert verdict.state == "failed"
    assert "backend 'digits' is also claimed by plugin 'digits'" in verdict.got


def test_two_distributions_that_bring_one_plugin_are_both_named(site):
    for number in ("first", "second"):
        source = DATASET.replace("NAME", number)
        site.install("same", source, module=f"{number}_module", distribution=number)
    found: list[dict] = []
    plugin_worker.check(Request("same"), found.append)
    (verdict,) = [event["verdict"] for event in found if event.get("verdict", {}).get("name") == "names_are_free"]
    assert verdict["state"] == "failed"
    assert "second_module, from second 1.0" in verdict["got"]


def test_expected_failures_are_declared_in_the_module(verdicts):
    declared = (
        "EQUIVENGINE_EXPECTED_FAILURES = {'shows_nan': 'missing pixels are NaN', 'loads': 'nothing fails here'}\n"
    )
    found = verdicts("honest", declared + FAULTS["hides_nan"].source)
    assert found["shows_nan"].state == "expected failure"
    assert found["shows_nan"].reason == "missing pixels are NaN"
    assert found["shows_nan"].good
    assert [name for name, verdict in found.items() if verdict.state == "unexpected pass"] == ["loads"]
    assert not found["loads"].good
    assert "take 'loads' out" in found["loads"].hint


def test_an_expected_failure_of_no_requirement_is_refused(verdicts):
    declared = "EQUIVENGINE_EXPECTED_FAILURES = {'shows_nans': 'a typing error'}\n"
    verdict = verdicts("typo", declared + BACKEND)["ready"]
    assert verdict.state == "failed"
    assert "no requirement is called 'shows_nans'" in verdict.what
    assert "shows_nan" in verdict.expected


@pytest.mark.parametrize("fault", LOST)
def test_a_plugin_that_takes_its_process_along_is_contained(cli, toys, fault):
    source, says = LOST[fault]
    toys.install(fault, source.replace("NAME", fault))
    limit = ("--timeout", "8") if fault == "hangs" else ()
    said = cli("plugin", "check", fault, *limit, code=1)
    assert "the process was lost" in said.out
    for words in says:
        assert words in said.out
    if fault == "crashes":  # another process went on with the rest of the plugin
        assert "ok        it opens, and holds something" in said.out
        assert said.out.count("FAILED") == 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", DOZEN)
def test_the_command_itself_names_the_defect(cli, toys, fault):
    toys.install(fault, FAULTS[fault].source.replace("NAME", fault))
    said = cli("plugin", "check", fault, code=1)
    assert f"[{FAULTS[fault].requirement}]" in said.out
    for words in FAULTS[fault].says:
        assert words in said.out
