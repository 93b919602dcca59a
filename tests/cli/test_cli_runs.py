"""The commands in their ordinary use."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from types import SimpleNamespace

import pytest

from equivengine import open_run


def test_a_probe_measures_each_image_and_says_where_and_what_next(measure, tmp_path):
    said = measure()
    assert "measure · toy · 3 images" in said.out
    assert "norm of the Jacobian" in said.out
    assert "3 of 3" in said.out
    assert "3 computed in " in said.out
    assert str(tmp_path / "run" / "run.h5") in said.out
    assert "random weights: this says nothing about a trained model" in said.out
    with open_run(tmp_path / "run") as run:
        assert [unit.samples[0].id for unit, _ in run.results("measure")] == ["a.png", "b.png", "c.png"]


def test_the_next_commands_that_it_prints_work(measure, cli, tmp_path):
    said = measure(out=tmp_path / "a run's")
    lines = said.out.split("next:\n")[1].splitlines()
    commands = [shlex.split(line) for line in lines if line.strip().startswith("equivengine")]
    assert [command[1] for command in commands] == ["show", "report"]
    for command in commands:
        cli(*command[1:])
    assert (tmp_path / "a run's" / "report.html").exists()


def test_no_line_is_wider_than_100_columns_but_paths_and_commands(measure):
    table = measure().out.split(" computed in ")[0]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 100


def test_repeating_a_command_shows_what_is_there(measure):
    measure()
    assert "3 already there" in measure().out


def test_without_out_the_directory_is_named_by_the_content_of_the_plan(cli, tmp_path):
    options = ("probe", "--plugin", "measure", "--model", "toy", "--images", "noise:2?size=8&mode=L")
    cli(*options)
    cli(*options)
    cli(*options, "--seed", "1")
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_the_document_holds_what_the_table_shows(measure):
    document = measure("--json", "--limit", 1).document
    assert document["outcomes"] == {"published": 1, "skipped": 0}
    (section,) = document["sections"]
    assert [row["name"] for row in section["rows"]] == ["norm", "response"]
    assert section["rows"][1]["interval"][0] <= section["rows"][1]["value"]
    assert section["checks"][0]["passed"] == 1


@pytest.mark.parametrize("behaviour", ["good", "prints", "nan"])
def test_json_is_one_document_on_stdout_whatever_goes_to_stderr(measure, behaviour):
    said = measure("--json", "--progress", "json", "--set", f"behaviour={behaviour}")
    assert said.document["published"] == 3
    events = [json.loads(line) for line in said.err.splitlines() if line.startswith("{")]
    assert [event["event"] for event in events] == ["run_started"] + ["unit_finished"] * 3


def test_a_plugin_that_prints_at_import_does_not_spoil_the_document(measure, toys):
    toys.install(
        "chatty",
        """
        import equivengine as eqv
        print("hello")
        EQUIVENGINE_API = (1, 0)
        @eqv.hookimpl
        def equivengine_register_probes():
            print("here I am")
            return []
        """,
    )
    assert measure("--json").document["published"] == 3


def test_a_scalar_that_could_not_be_measured_is_a_dash_and_null(measure, cli, tmp_path):
    said = measure("--set", "behaviour=nan", code=0)
    assert "FAILED, 0 of 3" in said.out  # the probe's own check
    row = next(line for line in said.out.splitlines() if "norm of the Jacobian" in line)
    assert row.split()[4:] == ["-", "0"]
    assert cli("show", tmp_path / "run", "--json").document["sections"][0]["rows"][0]["value"] is None


def test_not_converged_is_a_result_with_advice(measure):
    said = measure("--set", "behaviour=not_converged")
    assert "! not converged: raise count" in said.out
    assert "published, not_converged" in said.err


def test_progress_plain_names_each_unit_and_none_is_silent(measure, tmp_path):
    plain = measure("--progress", "plain")
    assert "3 units; results go to" in plain.err
    assert "[2/3] measure b.png: published" in plain.err
    assert measure("--progress", "none", out=tmp_path / "other").err == ""


def test_quiet_is_silent(cli):
    options = ("probe", "--plugin", "measure", "--model", "toy", "--images", "noise:1?size=8&mode=L", "--out", "run")
    assert cli("-q", *options).err == ""


def test_identical_images_are_measured_once_with_a_note(measure, photos, save_image):
    save_image(photos / "z.png", 0)
    said = measure()
    assert "1 unit left out" in said.err
    assert "3 computed" in said.out


def test_pairs_are_drawn_from_the_images_or_from_the_targets(measure, tmp_path):
    assert " -> " in measure(probe="difference").err
    said = measure("--targets", "noise:3?size=8&mode=L", probe="difference", out=tmp_path / "other")
    assert "difference · toy · 3 pairs" in said.out


def test_a_set_probe_takes_all_images_at_once(measure):
    document = measure("--json", probe="spread").document
    assert document["sections"][0]["rows"][0]["value"] == 3


def test_show_reads_a_directory_and_a_file_alone(measure, cli, tmp_path):
    measure()
    alone = (tmp_path / "run" / "run.h5").rename(tmp_path / "alone.h5")
    table = cli("show", tmp_path / "run").out
    assert "norm of the Jacobian" in table
    assert cli("show", alone).out == table
    first, second = (cli("show", path, "--json").document for path in (tmp_path / "run", alone))
    assert first.pop("run") != second.pop("run")
    assert first == second


def test_the_environment_says_where_and_the_command_line_counts_more(measure, monkeypatch):
    monkeypatch.setenv("EQUIVENGINE_DEVICE", "abacus")
    assert "'abacus'" in measure(code=2).err
    measure("--device", "cpu")
    monkeypatch.setenv("EQUIVENGINE_PROGRESS", "json")
    assert measure("--device", "cpu").err.startswith('{"event": "run_started"')


TOML = """
models = ["toy", "toy?seed=1"]
images = ["noise:2?size=8&mode=L", "noise:2?size=8&mode=L&seed=5"]
seed = 3
[[probes]]
name = "measure"
set = { scale = 2.0 }
[[probes]]
name = "measure"
[[probes]]
name = "difference"
"""


def test_a_run_file_expands_to_every_probe_model_and_image_set(cli, tmp_path):
    (tmp_path / "sweep.toml").write_text(TOML)
    plan = cli("run", "sweep.toml", "--dry-run")
    assert "24 units" in plan.out
    assert not (tmp_path / "runs").exists()
    assert len(cli("run", "sweep.toml", "--dry-run", "--json").document["units"]) == 24
    document = cli("run", "sweep.toml", "--json", "--out", "run").document
    assert document["published"] == 24
    assert len(document["sections"]) == 6
    assert "24 already there" in cli("run", "sweep.toml", "--out", "run").out


def test_command_line_over_environment_over_run_file(cli, tmp_path, monkeypatch):
    lines = ['models = "toy"', 'images = "noise:2?size=8"', 'device = "file"', "[[probes]]", 'name = "measure"']
    (tmp_path / "run.toml").write_text("\n".join(lines))
    assert "got: 'file'" in cli("run", "run.toml", code=2).err
    monkeypatch.setenv("EQUIVENGINE_DEVICE", "environment")
    assert "got: 'environment'" in cli("run", "run.toml", code=2).err
    assert "got: 'option'" in cli("run", "run.toml", "--device", "option", code=2).err


def test_every_option_counts_more_than_the_run_file(cli, tmp_path):
    (tmp_path / "sweep.toml").write_text(TOML)

    def planned(*options):
        return cli("run", "sweep.toml", "--dry-run", "--json", *options).document

    models = planned("--model", "toy?seed=5", "--model", "toy?seed=6")["config"]["models"]
    assert models == ["toy?seed=5", "toy?seed=6"]
    assert {unit["model"] for unit in planned("--model", "toy?seed=5")["units"]} == {"toy?seed=5"}
    images = planned("--images", "noise:1?size=8&mode=L", "--targets", "noise:4?size=8&mode=L")
    assert [unit["samples"][0]["images"] for unit in images["units"]] == ["noise:1?size=8&mode=L"] * 6
    assert images["units"][-1]["samples"][1]["images"] == "noise:4?size=8&mode=L"
    assert len(planned("--limit", "1")["units"]) == 12
    assert {unit["seed"] for unit in planned("--seed", "9")["units"]} == {9}
    assert {unit["precision"] for unit in planned("--precision", "fp64")["units"]} == {"fp64"}
    assert planned("--seed", "3")["digest"] == planned()["digest"]  # what the file says


def test_a_wrong_option_is_not_blamed_on_the_run_file(cli, tmp_path):
    (tmp_path / "sweep.toml").write_text(TOML)
    said = cli("run", "sweep.toml", "--limit", "0", code=2).err
    assert "--limit is not usable" in said
    assert "sweep.toml" not in said
    assert "no label" in cli("run", "sweep.toml", "--pairing", "other-class", "--limit", "1", code=2).err
    (tmp_path / "sweep.toml").write_text("limit = 0\n" + TOML)
    assert "sweep.toml, line 1: 'limit' is not usable" in cli("run", "sweep.toml", "--limit", "2", code=2).err


def test_title_and_description_are_kept_with_the_plan_and_change_no_unit(cli, tmp_path):
    (tmp_path / "sweep.toml").write_text(TOML)
    (tmp_path / "titled.toml").write_text('title = "Slopes"\ndescription = "Look at\\nthe norm."\n' + TOML)
    plain, titled = (cli("run", file, "--dry-run", "--json").document for file in ("sweep.toml", "titled.toml"))
    assert titled["units"] == plain["units"]
    assert titled["digest"] == plain["digest"]
    assert cli("run", "titled.toml", "--limit", "1", "--out", "run").out.startswith("Slopes\n\nmeasure, ")
    assert cli("show", "run", "--json").document["title"] == "Slopes"
    with open_run(tmp_path / "run") as run:
        assert run.plan["config"]["title"] == "Slopes"
        assert run.plan["config"]["description"] == "Look at\nthe norm."
    (tmp_path / "titled.toml").write_text('title = "Two\\nlines"\n' + TOML)
    assert "'title' is not usable" in cli("run", "titled.toml", "--dry-run", code=2).err


def test_ls_lists_what_can_be_typed(cli):
    assert "scale=1.0" in cli("ls", "probes").out
    assert "toy?seed=1" in cli("ls", "models").out
    assert "folder:photos" in cli("ls", "datasets").out
    assert "serial" in cli("ls", "executors").out
    assert "equivengine_toys" in cli("ls", "plugins").out
    assert "probes: measure, difference, spread" in " ".join(cli("ls", "plugins", "--load").out.split())


def test_ls_probes_describes_every_parameter_as_json(cli):
    probes = {row["name"]: row for row in cli("ls", "probes", "--json").document["probes"]}
    scale = next(p for p in probes["measure"]["parameters"] if p["name"] == "scale")
    assert scale["default"] == 1.0
    assert scale["type"] == "float"
    assert not scale["required"]
    assert "ratio" in scale["description"]
    for row in probes.values():
        for parameter in row["parameters"]:
            assert parameter["description"], (row["name"], parameter["name"])


def test_a_dry_run_prints_kinds_time_and_disk_and_writes_nothing(cli, tmp_path):
    (tmp_path / "sweep.toml").write_text(TOML)
    said = cli("run", "sweep.toml", "--dry-run")
    lines = [line.split() for line in said.out.splitlines()]
    assert ["measure", "scale=2.0", "toy?seed=1", "noise:2?size=8&mode=L&seed=5", "2"] in [line[:5] for line in lines]
    assert re.search(r"^time: about \d:\d\d:\d\d, \d:\d\d:\d\d to \d:\d\d:\d\d", said.out, re.MULTILINE)
    assert re.search(r"^disk: about [\d.]+ KB in runs/.* are free there$", said.out, re.MULTILINE)
    assert "measured now, on 18 batches" in said.out
    assert "difference · toy?seed=1:" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.toml"]
    each = cli("run", "sweep.toml", "--dry-run", "--no-estimate", "--units").out
    assert sum(line.startswith("measure") and "noise-" in line for line in each.splitlines()) == 16
    assert "time:" not in each


def test_a_dry_run_as_json_has_every_unit_and_the_estimate(cli, tmp_path):
    (tmp_path / "sweep.toml").write_text(TOML)
    document = cli("run", "sweep.toml", "--dry-run", "--json", "--out", "there").document
    assert len({unit["unit_id"] for unit in document["units"]}) == 24
    assert [kind["units"] for kind in document["kinds"]] == [4] * 6
    found = document["estimate"]
    assert found["directory"] == "there"
    assert 0 < found["seconds"]["low"] <= found["seconds"]["middle"] <= found["seconds"]["high"]
    per_unit = sum(kind["units"] * kind["bytes_per_unit"] for kind in document["kinds"])
    assert found["bytes"] == pytest.approx(per_unit * (1 + found["run_file_bytes_per_byte"]))


def test_a_plan_that_does_not_fit_on_the_disk_is_refused_before_anything_is_written(cli, tmp_path, monkeypatch):
    (tmp_path / "sweep.toml").write_text(TOML)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    said = cli("run", "sweep.toml", "--dry-run", "--out", "there", code=1)
    assert "24 units" in said.out
    assert "the plan does not fit on the disk of 'there'" in said.err
    assert "got: 1.0 KB free" in said.err
    assert not (tmp_path / "there").exists()


def test_with_stop_rules_what_is_needed_in_any_case_must_fit_and_the_rest_is_warned_of(cli, tmp_path, monkeypatch):
    (tmp_path / "stop.toml").write_text(
        'models = "toy"\nimages = "noise:80?size=8&mode=L"\nstop = { scalar = "measure/norm", tolerance = 0.5 }\n'
        '[[probes]]\nname = "measure"\n'
    )
    command = ("run", "stop.toml", "--dry-run", "--out", "there")
    found = cli(*command, "--json").document
    assert [(kind["units"], kind["least_units"]) for kind in found["kinds"]] == [(80, 8)]
    sizes = found["estimate"]["least_bytes"], found["estimate"]["bytes"]
    assert sizes[1] == pytest.approx(10 * sizes[0])
    assert found["estimate"]["least_seconds"]["middle"] < found["estimate"]["seconds"]["middle"]
    between = sum(sizes) / 2
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=between))
    said = cli(*command)
    assert "at least 8 of them, those before the first look of each stop rule; at most all" in said.out
    assert re.search(r"^time: at least about .*; at most about", said.out, re.MULTILINE)
    assert re.search(r"^disk: at least about [\d.]+ [KM]B, at most about [\d.]+ [KM]B in there", said.out, re.MULTILINE)
    assert "warning: the plan may not fit on the disk of 'there'" in said.err
    between = sizes[0] / 2
    refused = cli(*command, code=1).err
    assert "the plan does not fit on the disk of 'there'" in refused
    assert "8 units, which are needed in any case" in refused
    assert not (tmp_path / "there").exists()


def test_a_kind_that_cannot_be_measured_is_named(cli, tmp_path):
    (tmp_path / "sweep.toml").write_text('models = "toy"\nlimit = 2\nimages = "digits"\n[[probes]]\nname = "measure"\n'
                                         'set.behaviour = "raises"')  # fmt: skip
    said = cli("run", "sweep.toml", "--dry-run")
    assert "no estimate: measure · toy: probe 'measure': ValueError: no luck" in said.out
    assert "time:" not in said.out
