"""What an image set says of itself is shown before a run, and kept with its plan."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from equivengine import open_run
from equivengine.cli.main import run
from equivengine.errors import PluginError
from equivengine.runtime.engine import execute
from equivengine.runtime.plan import Plan

REMARK = "left out: 1 that is not named like images (notes.txt), and 1 hidden"


@pytest.fixture
def others(photos):
    """What is no image, beside those that are."""
    (photos / "notes.txt").touch()
    (photos / ".hidden.png").touch()
    return photos


def test_remarks_are_kept_with_the_plan_and_change_no_digest(make_plan, photos):
    before = make_plan()
    assert before.remarks == ()
    assert "remarks" not in before.to_json()
    (photos / "notes.txt").touch()
    (photos / ".hidden.png").touch()
    plan = make_plan(targets=f"folder:{photos}?labels=dirs", probe="difference")
    assert plan.remarks == ((f"folder:{photos}", REMARK), (f"folder:{photos}?labels=dirs", REMARK))
    assert make_plan().digest == before.digest
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert (again.remarks, again.digest) == (plan.remarks, plan.digest)


def test_the_command_line_shows_them_before_the_first_unit_and_the_run_keeps_them(others, toys, tmp_path, capfd):
    out = tmp_path / "run"
    command = ["probe", "--plugin", "measure", "--model", "toy", "--images", f"folder:{others}", "--out", str(out)]
    assert run(command) == 0
    said = capfd.readouterr().err.splitlines()
    assert said[0] == f"note: folder:{others}: {REMARK}"
    with open_run(out) as opened:
        assert opened.plan["remarks"] == [[f"folder:{others}", REMARK]]
    assert run(["resume", str(out), "--progress", "json"]) == 0
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert {"event": "remark", "message": f"folder:{others}: {REMARK}"} in events
    assert run(["-q", *command]) == 0
    assert "note:" not in capfd.readouterr().err


def test_a_dry_run_shows_them_too(others, toys, tmp_path, capfd):
    file = tmp_path / "sweep.toml"
    file.write_text(f'models = ["toy"]\nimages = ["folder:{others}"]\n[[probes]]\nname = "measure"\n')
    assert run(["run", str(file), "--dry-run"]) == 0
    assert f"note: folder:{others}: {REMARK}" in capfd.readouterr().err
    assert run(["run", str(file), "--dry-run", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["remarks"] == [[f"folder:{others}", REMARK]]


def test_images_that_cannot_be_read_are_told_before_their_units_fail(make_plan, make_config, registry, photos):
    os.mkfifo(photos / "pipe.png")
    assert make_plan().remarks == ((f"folder:{photos}", "1 image cannot be read, and will fail: [3]"),)
    report = execute(make_config(), registry=registry)
    assert +report.outcomes == {"published": 3, "failed": 1}
    for number in range(3):
        os.mkfifo(photos / f"z{number}.png")
    assert make_plan().remarks[0][1] == "4 images cannot be read, and will fail: [3], [4], [5], ..."


@pytest.mark.parametrize(
    "remarks",
    [
        pytest.param("a text", id="a text"),
        pytest.param([1], id="a number"),
        pytest.param(None, id="none"),
        pytest.param({"a": "b"}, id="a table"),
    ],
)
def test_remarks_that_are_no_texts_are_the_fault_of_their_set(make_config, registry, monkeypatch, remarks):
    cls, _ = registry.dataset("noise")
    monkeypatch.setattr(cls, "remarks", remarks)
    with pytest.raises(PluginError, match="the remarks of 'noise:2' are no list of texts") as caught:
        execute(make_config(images=["noise:2"]), registry=registry)
    assert "plugin 'noise'" in caught.value.hint
    assert not Path(make_config().out).exists()
