"""Where the pictures of a run are: files to look at, and one line that says so."""

from __future__ import annotations

import shutil

import pytest

PROBE = """
    import numpy as np
    import equivengine as eqv

    EQUIVENGINE_API = (1, 0)

    class Painter(eqv.Probe[eqv.Params]):
        \"\"\"Pictures of an image.\"\"\"

        name = "painter"
        version = "1"
        summary = "pictures of an image"
        arity = "one"

        def run(self, task):
            x = task.samples[0]
            found = {"image": eqv.pictures.picture(x, "the image"), "gap": eqv.pictures.difference(x, 1 - x, "a gap")}
            return eqv.ProbeResult({}, {"mean": eqv.Scalar(float(x.mean()), "1", "mean")}, pictures=found)

    @eqv.hookimpl
    def equivengine_register_probes():
        return [Painter]
"""


@pytest.fixture
def painted(measure, toys, tmp_path):
    """A run whose probe gives two pictures for each of three images, and what the command printed."""
    toys.install("painter", PROBE)
    return tmp_path / "run", measure(probe="painter")


def test_a_run_and_show_print_one_line_with_their_place_and_number(painted, cli):
    run, said = painted
    line = f"6 pictures of 3 units: {run / 'pictures'}"
    for text in (said.out, cli("show", run).out, cli("show", run / "run.h5").out):
        assert text.splitlines().count(line) == 1
    assert len(list((run / "pictures").glob("painter-*/*.png"))) == 6
    found = cli("show", run, "--json").document["pictures"]
    assert found == {"pictures": 6, "units": 3, "folder": str(run / "pictures")}


def test_a_file_alone_holds_them_too(painted, cli, tmp_path):
    alone = shutil.move(painted[0] / "run.h5", tmp_path / "alone.h5")
    assert f"6 pictures of 3 units: within {alone}" in cli("show", alone).out


def test_resume_makes_deleted_files_again(painted, cli):
    run, _ = painted
    shutil.rmtree(run / "pictures")
    assert "6 pictures of 3 units: within" in cli("show", run).out
    cli("resume", run)
    assert len(list((run / "pictures").glob("painter-*/*.png"))) == 6


def test_what_cannot_be_written_is_one_clear_error_and_the_results_stay(painted, cli):
    run, _ = painted
    shutil.rmtree(run / "pictures")
    (run / "pictures").write_text("in the way")
    said = cli("resume", run, code=1)
    assert str(run / "pictures") in said.err
    assert "the results are whole" in said.err
    assert "painter · toy · 3 images" in cli("show", run).out


def test_runs_without_pictures_say_nothing_about_them(measure, cli, tmp_path):
    assert "pictures of" not in measure().out
    assert cli("show", tmp_path / "run", "--json").document["pictures"] is None
