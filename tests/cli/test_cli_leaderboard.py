"""`equivengine leaderboard`: what it writes, prints and refuses; the classes of `compare`."""

from __future__ import annotations

import base64
import csv
import hashlib
import re

import numpy as np
import pytest
from report_cases import HOSTILE, Read

from equivengine.store import open_run


@pytest.fixture
def two(spoken, save_image, photos):
    """Runs of two models on seven photos."""

    def make(text=""):
        for place in range(4):
            save_image(photos / f"more-{place}.png", 10 + place)
        return spoken(text=text), spoken("--model", "toy?seed=1", text=text, out="other")

    return make


def script_of(page):
    return re.search(r"<script>(.*?)</script>", page.page, re.DOTALL)[1]


def test_a_row_for_each_model_a_column_for_each_headline(cli, two, tmp_path):
    first, second = two()
    said = cli("leaderboard", first, second, "--json")
    assert [metric["key"] for metric in said.document["metrics"]] == ["speaker.mean", "speaker.absent"]
    assert [row["model"] for row in said.document["models"]] == ["toy", "toy?seed=1"]
    with open_run(first) as run:
        values = [record.summary["mean"].value for record in run.units()]
    entry = said.document["models"][0]["entries"]["speaker.mean"]
    assert entry["value"] == np.median(values)
    assert (entry["n"], entry["kind"], entry["units"]) == (7, "95%", 7)
    assert said.document["models"][0]["entries"]["speaker.absent"]["why"] == "its units do not have this number"
    assert any("random weights" in caution for caution in said.document["cautions"])
    printed = cli("leaderboard", first, second).out
    assert "mean" in printed
    assert "toy?seed=1" in printed
    assert f"{np.median(values):.4g}" in printed


def test_files_hold_the_same_numbers(cli, two, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    runs = two()
    said = cli("leaderboard", *runs, "--csv", "t/m.csv", "--parquet", "m.parquet", "--json")
    with open("t/m.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = parquet.read_table("m.parquet").to_pylist()
    for row, stored, told in zip(rows, table, said.document["models"], strict=True):
        entry = told["entries"]["speaker.mean"]
        assert float(row["speaker.mean"]) == stored["speaker.mean"] == entry["value"]
        assert [stored["speaker.mean.low"], stored["speaker.mean.high"]] == entry["interval"]
        assert row["speaker.absent"] == ""
        assert stored["speaker.absent.why"] == "its units do not have this number"
        assert stored["random_weights"] is True
    said = cli("leaderboard", *runs, "--csv", "t/m.csv", code=2)
    assert "is there already" in said.err
    cli("leaderboard", *runs, "--csv", "t/m.csv", "--force")
    assert "is a directory" in cli("leaderboard", *runs, "--csv", "t", code=2).err


def test_the_page_lets_its_own_program_run_and_no_other(cli, two, tmp_path):
    first, second = two(HOSTILE)
    cli("leaderboard", first, second, "--out", "board.html")
    page = Read((tmp_path / "board.html").read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    digest = base64.b64encode(hashlib.sha256(script_of(page).encode()).digest()).decode()
    assert page.all("meta")[2]["content"] == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    assert not page.all("img")
    assert not page.all("link")
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "<script>alert('x')</script>" in page.text
    assert not re.search(r"https?://|@import|url\(", page.page)
    assert not re.search("[\x00-\x08\x0e-\x1f\x7f\u202e]", page.page)


def test_the_page_reads_without_its_program(cli, two, tmp_path):
    first, second = two()
    cli("leaderboard", first, second, "--out", "board.html")
    words = Read((tmp_path / "board.html").read_text(encoding="utf-8")).words
    assert words.index("Before you read on") < words.index("random weights") < words.index("n = 7 images")
    assert "its units do not have this number" in words
    assert "95% bootstrap interval" in words


def test_a_probe_that_raises_has_no_columns(cli, spoken):
    run = spoken("--set", "wrong=headlines")
    said = cli("leaderboard", run, code=2)
    assert "there is nothing for a leaderboard" in said.err
    assert "got: the probe 'speaker' could not name its headlines: ValueError: no headlines" in said.err
    said = cli("leaderboard", run, "--scalar", "speaker.mean")
    assert "the probe 'speaker' could not name its headlines: ValueError: no headlines" in said.err
    assert "mean of the pixels" in said.out


def test_without_the_probe_columns_are_asked_for_by_name(cli, spoken):
    run = spoken()
    said = cli("--no-plugin", "speaker", "leaderboard", run, "--scalar", "speaker.mean", "--sort", "speaker.mean")
    assert "the probe 'speaker' is not installed: its headlines are not known (--scalar PROBE.NAME" in said.err
    assert "toy" in said.out


def test_what_cannot_be_tabled_is_one_clear_error(cli, spoken, tmp_path):
    run = spoken()
    assert "speaker' stores no scalar 'meen'" in cli("leaderboard", run, "--scalar", "speaker.meen", code=2).err
    assert "perhaps 'speaker.mean'" in cli("leaderboard", run, "--sort", "speaker.men", code=2).err
    assert "nothing" in cli("leaderboard", tmp_path / "nothing", code=1).err
    (tmp_path / "run" / "plan.json").write_text('{"format": "equivengine-plan", "format_version": "9.0"}')
    for command in ("leaderboard", "report", "compare"):
        said = cli(command, run, code=1)
        assert "9.0" in said.err
        assert said.err.count("error:") == 1


def test_classes_of_a_probe_that_reads_labels(cli, toys, save_image, tmp_path):
    for place, label in enumerate(["cat", "dog"] * 4):
        (tmp_path / "sorted" / label).mkdir(parents=True, exist_ok=True)
        save_image(tmp_path / "sorted" / label / f"{place}.png", place)
    images = f"folder:{tmp_path / 'sorted'}?labels=dirs"
    given = ["--images", images, "--model"]
    for probe, seed in (("measure", 0), ("measure", 1), ("named", 0)):
        out = tmp_path / f"{probe}{seed}"
        cli("probe", "--plugin", probe, *given, f"toy?seed={seed}", "--out", out)
    runs = [tmp_path / name for name in ("measure0", "measure1")]
    assert "no class of any image is known" in cli("compare", *runs, "--per-class", code=2).err
    said = cli("compare", *runs, tmp_path / "named0", "--per-class", "--json")
    (comparison,) = said.document["comparisons"]
    norms = [entry for entry in comparison["classes"] if entry["scalar"] == "norm"]
    assert [entry["class"] for entry in norms] == ["cat", "dog"]
    with open_run(runs[0]) as run:
        cats = [r.summary["norm"].value for r in run.units() if r.unit.samples[0].id.startswith("cat")]
    assert norms[0]["columns"][0]["middle"]["value"] == np.median(cats)
    assert norms[0]["columns"][1]["difference"]["n"] == 4
    printed = cli("compare", *runs, tmp_path / "named0", "--per-class", "--out", "page.html").out
    assert "for each class of images" in printed
    assert "For each class of images" in Read((tmp_path / "page.html").read_text()).words
