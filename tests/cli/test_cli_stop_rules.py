"""Commands on runs whose image sets end early."""

from __future__ import annotations

import json

NOISE = "noise:24?size=8&mode=L"


def test_a_set_that_ends_early_is_shown_verified_reported_and_has_nothing_to_resume(measure, cli, tmp_path):
    said = measure("--stop", "norm=0.1", images=NOISE)
    line = f"stop: measure/norm on toy, images {NOISE}: known within "
    assert line in said.out
    assert "of 24 units" in said.out
    document = cli("show", "run", "--json").document
    assert document["missing"] == []
    assert 8 <= document["published"] < 24
    assert len(document["unneeded"]) == 24 - document["published"]
    assert document["endings"][0] == said.out.split("stop: ")[1].splitlines()[0]
    verified = cli("verify", "run")
    assert f"{len(document['unneeded'])} units of the plan not needed" in verified.out
    assert "resume" not in verified.out
    again = cli("resume", "run", "--json").document
    assert again["outcomes"] == {"skipped": document["published"]}
    cli("report", "run", "--figures", 0)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "measure/norm on toy" in page
    assert "missing" not in page.split("</header>")[0]


def test_a_set_that_does_not_suffice_says_how_narrow_it_became(measure):
    said = measure("--stop", "norm=0.001", images="noise:9?size=8&mode=L")
    assert "(0.1% asked) after 9 of 9 units" in said.out


def test_an_order_that_is_not_random_is_warned_of_before_the_first_unit(measure, cli, tmp_path):
    words = "warning: stop: the images of 'digits' are taken in its own order, which is not known to be random"
    given = ("--stop", "norm=0.5", "--limit", 8)
    said = measure(*given, images="digits", out=tmp_path / "own").err.splitlines()
    assert [line.startswith(words) for line in said].index(True) < next(
        place for place, line in enumerate(said) if line.startswith("[1/8]")
    )
    document = measure(*given, "--order", "random", "--json", images="digits", out=tmp_path / "random").document
    assert document["cautions"] == []
    events = measure(*given, "--progress", "json", images="digits", out=tmp_path / "again").err.splitlines()
    assert [json.loads(line)["event"] for line in events][:3] == ["run_started", "caution", "unit_finished"]
    (tmp_path / "stop.toml").write_text(
        'models = "toy"\nimages = "digits"\nlimit = 8\n[[probes]]\nname = "measure"\n'
        '[[stop]]\nscalar = "measure/norm"\ntolerance = 0.5\n'
    )
    assert words in cli("run", "stop.toml", "--dry-run", "--no-estimate").err
    assert "warning" not in cli("run", "stop.toml", "--dry-run", "--no-estimate", "--order", "random").err


def test_wrong_rules_are_refused(measure):
    assert "--stop takes KEY=VALUE" in measure("--stop", "norm", code=2).err
    assert "less than 1" in measure("--stop", "norm=3", code=2).err
    assert "have no scalar 'nrom'" in measure("--stop", "nrom=0.1", images=NOISE, code=2).err
