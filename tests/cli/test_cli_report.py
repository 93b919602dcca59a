"""`equivengine report` and `equivengine compare`: what they write, print and refuse."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from report_cases import HOSTILE, Read

from equivengine.pictures.raster import decode_png
from equivengine.store import open_run


def page_of(cli, run, *arguments):
    said = cli("report", run, *arguments)
    return Read((run / "report.html").read_text(encoding="utf-8")), said


def test_a_report_is_one_file_that_needs_nothing_else(cli, spoken):
    page, said = page_of(cli, spoken())
    assert f"{Path.cwd() / 'run' / 'report.html'} (" in said.out
    assert page.all("meta")[2]["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not page.all("script")
    assert not page.all("link")
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith(("data:image/png;base64,", "#")), value
    assert not re.search(r"https?://|@import|url\(", page.page)


def test_it_shows_findings_numbers_figures_and_pictures(cli, spoken):
    run = spoken()
    page, said = page_of(cli, run)
    with open_run(run) as opened:
        records = opened.units()
        median = float(np.median([record.summary["mean"].value for record in records]))
        finding = f"The mean is {median:.3f}."
        assert finding in page.words
        assert finding in said.out
        assert page.words.index(finding) < page.words.index("mean of the pixels")
        assert f"{median:.4g}" in page.words
        assert len(page.all("figure", "plot")) == 1 + 3  # the overview, and one of each unit
        levels = [decode_png(png) for png in page.images()]
        for record in records:
            for picture in record.pictures.values():
                assert any(np.array_equal(found, picture.levels) for found in levels)
        for record in records:
            assert record.unit.weights_digest in page.text
    assert "over 3 units" in page.words
    assert len(page.all("input")) == 3  # what can be laid over an original


def test_a_report_is_the_same_twice(cli, spoken):
    run = spoken()
    first, second = (page_of(cli, run)[0].page for _ in range(2))
    assert first == second


def test_units_that_are_shown_can_be_limited(cli, spoken):
    run = spoken()
    page, _ = page_of(cli, run, "--figures", 1, "--pictures", 2)
    assert len(page.all("figure", "plot")) == 1 + 1
    assert len(page.all("input")) == 2
    assert "The first 2 of 3 units" in page.words
    assert "Figures of the first 1 of 3 units" in page.words
    page, _ = page_of(cli, run, "--figures", 0, "--pictures", 0)
    assert len(page.images()) == 1


def test_hostile_texts_and_file_names_stay_texts(cli, measure, speaker, photos, save_image, tmp_path):
    speaker(HOSTILE)
    save_image(photos / "<b onclick=alert(1)>\u202e.png", 9)
    for wrong in ("", "status", "check"):
        run = tmp_path / f"run{wrong}"
        measure("--set", f"wrong={wrong}", probe="speaker", out=run)
        page, said = page_of(cli, run)
        assert not page.all("script")
        assert not page.all("b")
        assert all((image["src"] or "").startswith("data:") for image in page.all("img"))
        assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
        assert "<script>alert('x')</script>" in page.text
        assert "<b onclick=alert(1)>\\u202e.png" in page.text
        assert not re.search("[\x00-\x08\x0e-\x1f\x7f\u202e]", page.page)
        assert not re.search("[\x00-\x08\x0e-\x1f\x7f\u202e]", said.out + said.err)


def test_what_a_reader_must_know_comes_first(cli, spoken, save_image, photos):
    page, _ = page_of(cli, spoken("--set", "wrong=status"))
    words = page.words
    assert words.index("random weights") < words.index("not converged: try again") < words.index("What was found")
    page, _ = page_of(cli, spoken("--set", "wrong=check", out="run2"))
    assert "check failed in 3 of 3: not much" in page.words
    (photos / "d.png").write_bytes(b"no image")
    run = spoken_with_failure = Path.cwd() / "run3"
    cli("probe", "--plugin", "speaker", "--model", "toy", "--images", f"folder:{photos}", "--out", run, code=3)
    page, _ = page_of(cli, spoken_with_failure)
    assert "3 units published, 1 failed" in page.words
    assert page.words.index("failed: d.png") < page.words.index("What was found")
    next((run / "shards").glob("*/*.h5")).unlink()
    page, _ = page_of(cli, run)
    assert f"1 unit is missing: equivengine resume {run}" in page.words


@pytest.mark.parametrize(
    ("wrong", "remark", "plain"),
    [
        ("findings", "the probe 'speaker' could not word its findings: it called sys.exit('no words')", 3),
        ("one sentence", "could not word its findings: TypeError: findings is to return a list of sentences", 3),
        ("overview", "the probe 'speaker' could not draw its overview: ValueError: no overview", 3),
    ],
)
def test_a_probe_that_raises_costs_its_own_part_only(cli, spoken, wrong, remark, plain):
    page, said = page_of(cli, spoken("--set", f"wrong={wrong}"))
    assert remark in page.words
    assert remark in said.err
    assert len(page.all("figure", "plot")) == 3 + (wrong != "overview")
    assert "mean of the pixels" in page.words


def test_something_else_than_a_figure_is_said_and_plotted_plainly(cli, spoken):
    page, said = page_of(cli, spoken(text="not a figure"))
    assert "could not draw a.png: TypeError: 'f' is to be a matplotlib.figure.Figure, not NoneType" in said.err
    assert "row: all pixels" in page.words


def test_without_the_probe_that_measured_what_is_stored_is_shown(cli, spoken, speaker, toys):
    run = spoken()
    speaker(version="2")
    page, said = page_of(cli, run)
    assert "version 1 of the probe 'speaker' measured, version 2 is installed" in said.err
    assert "over 3 units" not in page.words
    assert "row: all pixels" in page.words
    assert "mean of the pixels" in page.words.partition("What was found")[2][:200]
    page, said = Read(""), cli("--no-plugin", "speaker", "report", run)
    assert "the probe 'speaker' is not installed" in said.err


def test_a_file_alone_has_its_report_beside_it(cli, spoken, tmp_path):
    alone = (spoken() / "run.h5").rename(tmp_path / "alone.h5")
    cli("report", alone)
    assert "The mean is" in Read((tmp_path / "alone.report.html").read_text()).words
    cli("report", alone, "--out", tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text() == (tmp_path / "alone.report.html").read_text()


def test_what_cannot_be_reported_is_one_clear_error(cli, spoken, tmp_path):
    said = cli("report", tmp_path / "nothing", code=1)
    assert "nothing" in said.err
    run = spoken()
    for shard in (run / "shards").glob("*/*.h5"):
        shard.unlink()
    said = cli("report", run, code=2)
    assert "has no results to report" in said.err
    assert not (run / "report.html").exists()
    said = cli("report", run, "--figures", -1, code=2)
    assert "--figures" in said.err
    (tmp_path / "file").write_text("")
    run = spoken(out="run2")
    said = cli("report", run, "--out", tmp_path / "file" / "page.html", code=1)
    assert "cannot write" in said.err


def test_the_settings_of_a_report_run_again(cli, spoken, tmp_path, photos):
    run = spoken("--set", "gain=2.5", "--limit", 2)
    page, _ = page_of(cli, run)
    toml = page.text.partition("FILE.toml:")[2].partition("Written by")[0]
    (tmp_path / "again.toml").write_text(toml)
    cli("run", tmp_path / "again.toml", "--out", tmp_path / "again")
    with open_run(run) as first, open_run(tmp_path / "again") as second:
        assert first.published == second.published


def test_models_stand_side_by_side(cli, spoken, tmp_path):
    first, second = spoken(), spoken("--model", "toy?seed=1", "--set", "gain=3", out="other")
    said = cli("compare", first, second, "--out", tmp_path / "compare.html")
    assert "speaker" in said.out
    assert "the parameter gain differs" in said.out
    page = Read((tmp_path / "compare.html").read_text(encoding="utf-8"))
    assert "toy against toy?seed=1" in page.words
    assert len(page.all("figure", "plot")) == 1
    assert "over 6 units toy?seed=1, gain=3.0" in page.words
    document = cli("compare", first, second, "--json").document
    (comparison,) = document["comparisons"]
    assert [column["label"] for column in comparison["columns"]] == ["toy", "toy?seed=1"]
    small, large = (column["rows"][0]["value"] for column in comparison["columns"])
    assert large == pytest.approx(3 * small, rel=1e-6)


def test_models_on_other_images_are_not_compared_silently(cli, spoken, tmp_path):
    first, second = spoken("--limit", 2), spoken("--model", "toy?seed=1", out="other")
    said = cli("compare", first, second)
    assert "not on the same images: 2 of 3 are common to all columns" in said.out


def test_hostile_texts_stay_texts_in_a_comparison(cli, spoken, tmp_path):
    first, second = spoken(text=HOSTILE), spoken("--model", "toy?seed=1", text=HOSTILE, out="other")
    cli("compare", first, second, "--out", tmp_path / "compare.html")
    page = Read((tmp_path / "compare.html").read_text(encoding="utf-8"))
    assert not page.all("script")
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all((image["src"] or "").startswith("data:") for image in page.all("img"))


def test_a_single_model_is_nothing_to_compare(cli, spoken):
    said = cli("compare", spoken(), code=2)
    assert "there is nothing to compare" in said.err
    assert "got: speaker on toy" in said.err
