"""examples/equivengine-example is built, installed and run as a user would, and passes its own tests where it is."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from conftest import ROOT, pip_install

import equivengine as eqv
from equivengine.cli import plugin_worker

EXAMPLE = ROOT / "examples" / "equivengine-example"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example in a folder of its own, built from a copy: nothing is left behind in the source tree."""
    folder = tmp_path_factory.mktemp("example")
    copy = shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info", "__py*"))
    pip_install(folder / "site", copy)
    return folder / "site"


@pytest.fixture
def example(installed, use_folder, equivengine):
    """The command line with the example installed."""
    use_folder(installed)
    return equivengine


def test_the_wheel_brings_three_plugins_and_their_types(installed, use_folder):
    use_folder(installed)
    found = {e.name: e.value for e in entry_points(group="equivengine") if e.dist.name == "equivengine-example"}
    assert set(found) == {"gabor", "everyday", "gratings"}
    assert (installed / "equivengine_example" / "py.typed").is_file()


def test_it_uses_public_names_only():
    for path in EXAMPLE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"\beqv\.(\w+)", text)) <= set(eqv.__all__), path
        imports = re.findall(r"^\s*(?:from|import) (equivengine\S*)", text, re.MULTILINE)
        allowed = {"equivengine", "equivengine.testing"}
        assert {name for name in imports if not name.startswith("equivengine_example")} <= allowed, path


def test_a_run_of_all_three_ends_in_a_report_with_figure_findings_and_pictures(example):
    run = ["probe", "--plugin", "everyday", "--model", "gabor:6", "--images", "gratings:2", "--out", "run"]
    assert re.search(r"^2 computed", example(*run), re.MULTILINE)
    example("report", "run")
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "Answers to everyday changes" in page
    assert re.search("Of [67] everyday changes, .*moves the embedding most", page)
    assert "blurred, exaggerated" in page
    with eqv.open_run("run") as found:
        vertical, horizontal = found.units("everyday")
        # Stripes stay what they are when they move along themselves.
        gone = [{name for name, s in u.summary.items() if math.isnan(s.value)} for u in (vertical, horizontal)]
        assert gone == [{"down"}, {"right"}]
        assert all(check.passed for unit in (vertical, horizontal) for check in unit.checks.values())
        assert set(vertical.pictures) >= {"original", "brighter", "turned"}


def test_each_plugin_passes_the_check(example):
    document = json.loads(example("plugin", "check", "gratings", "--json"))
    assert document["passed"]
    assert document["package"] == "equivengine-example 0.1.0"
    for name in ("gabor", "everyday"):  # without the process around it, which takes longest
        events: list[dict] = []
        plugin_worker.check(plugin_worker.Request(name), events.append)
        states = [event["verdict"]["state"] for event in events if event["event"] == "verdict"]
        assert set(states) == {"passed"}
        assert len(states) > 20


def test_its_own_tests_pass_where_it_is_installed(installed, tmp_path):
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (installed, ROOT, ROOT / "plugins")))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b68 passed", done.stdout), done.stdout
