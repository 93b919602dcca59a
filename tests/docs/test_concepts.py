"""docs/concepts.md: its commands print the numbers that it shows, and draw the figures that it shows."""

from __future__ import annotations

import fnmatch
import math
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equivengine import open_run
from equivengine.cli import main
from equivengine.runtime.config import load_toml
from equivengine.runtime.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench" / "figures")]

import pages  # noqa: E402
from reader import LIMIT, small_settings  # noqa: E402

TEXT = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
#: Console blocks, by the figure that they draw: the output shown, and whether measuring takes long.
SHOWN = {
    block.commands[0][0].removeprefix("python bench/figures/concepts.py "): (block.commands[0][1], block.slow)
    for block in pages.found(TEXT)
    if block.language == "console"
}
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")


def numbers(text: str) -> list[float]:
    return [float(found) for found in NUMBER.findall(text)]


def rows(output: str) -> dict[str, list[float]]:
    """Label and values of each line but the last, which names the file."""
    parts = (re.split(r"\s{2,}", line, maxsplit=1) for line in output.splitlines()[:-1])
    return {label: numbers(values) for label, values in parts}


def agree(found: float, shown: float) -> bool:
    """Within 5%, which another processor's roundoff stays within; roundoff itself within a factor of 3."""
    if abs(shown) < 1e-5:
        return shown / 3 <= found <= 3 * shown
    return math.isclose(found, shown, rel_tol=0.05)


def check(name, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["concepts.py", name])
    capsys.readouterr()
    runpy.run_path(str(ROOT / "bench" / "figures" / "concepts.py"), run_name="__main__")
    printed, shown = rows(capsys.readouterr().out), rows(SHOWN[name][0])
    assert printed.keys() == shown.keys()
    for label, values in shown.items():
        assert values, label
        assert all(map(agree, printed[label], values)), (label, printed[label], values)
    ours, drawn = (ROOT / "docs" / "images", folder / "docs" / "images")
    images = [np.asarray(Image.open(at / f"concepts-{name}.png").convert("L"), float) for at in (ours, drawn)]
    assert images[0].shape == images[1].shape
    # Of 255: fonts and roundoff differ, nothing else. Roundoff decides by which way a walk goes: one thread and two are
    # 3.5 apart, other figures of this size 20.
    assert np.abs(images[0] - images[1]).mean() < (6 if name == "walk" else 3)


@pytest.mark.parametrize("name", [name for name, (_, slow) in SHOWN.items() if not slow])
def test_a_command_prints_and_draws_what_the_page_shows(name, tmp_path, monkeypatch, capsys):
    check(name, tmp_path, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, slow) in SHOWN.items() if slow])
def test_a_longer_command_prints_and_draws_what_the_page_shows(name, tmp_path, monkeypatch, capsys):
    check(name, tmp_path, monkeypatch, capsys)


def test_every_figure_has_its_command_and_is_small():
    drawn = re.findall(r"\]\(images/concepts-(\w+)\.png\)", TEXT)
    assert drawn == list(SHOWN)
    run_files = {path.stem for path in (ROOT / "bench" / "figures" / "concepts").glob("*.toml")}
    assert run_files | {"slice"} == set(drawn)
    assert {path.stem for path in (ROOT / "docs" / "images").glob("concepts-*.png")} == {f"concepts-{n}" for n in drawn}
    for name in drawn:
        assert (ROOT / "docs" / "images" / f"concepts-{name}.png").stat().st_size < 150_000


def test_every_number_in_the_text_is_one_that_a_command_prints():
    printed = [value for shown, _ in SHOWN.values() for value in numbers(shown)]
    text = pages.BLOCK.sub("", TEXT).partition("## Sources")[0]
    beside = r"^[|#].*|`[^`]*`|\]\([^)]*\)|Eq\. \d( and \d)?|arXiv [\d.]+|theorem [\d.]+|[,(] ?\d{4}\)|\b\w+_\d+"
    text = re.sub(beside, "", text, flags=re.MULTILINE)  # tables, code, names and citations
    quoted = [found for found in NUMBER.findall(text) if "." in found or "e" in found or int(found) > 9]
    assert len(quoted) > 25
    missing = [found for found in quoted if not any(math.isclose(float(found), value) for value in printed)]
    assert not missing


def notions() -> list[tuple[str, list[str], list[str]]]:
    """Probe, parameters and stored numbers of each row of the last table."""
    section = TEXT.partition("## From notion to number")[2].partition("## ")[0]
    found = re.findall(r"^\| [^|]* \| \[?`(\w+)`[^|]* \| ([^|]*) \| ([^|]*) \|$", section, re.MULTILINE)
    return [(probe, *(re.findall(r"`([\w*]+)`", cell) for cell in cells)) for probe, *cells in found]


def test_the_table_of_notions_names_parameters_that_exist():
    registry = Registry.load()
    assert {probe for probe, _, _ in notions()} == set(registry.probes.names())
    for probe, parameters, _ in notions():
        assert parameters
        assert set(parameters) <= set(registry.probe(probe)[0].Params.model_fields)


@pytest.mark.slow
@pytest.mark.parametrize(("probe", "stored"), [(probe, stored) for probe, _, stored in notions()])
def test_the_table_of_notions_names_what_is_stored(probe, stored, tmp_path):
    settings = [word for key, value in small_settings(probe, {}).items() for word in ("--set", f"{key}={value}")]
    out = ["--limit", str(LIMIT.get(probe, 1)), "--out", str(tmp_path / "run"), "--progress", "none"]
    assert main.run(["probe", "--plugin", probe, "--model", "digits", "--images", "digits", *settings, *out]) == 0
    with open_run(tmp_path / "run") as run:
        (record,) = run.units(probe)
        names = {*record.summary, *record.arrays}
    assert stored
    assert not [name for name in stored if not fnmatch.filter(names, name)]


def test_the_run_files_measure_one_image_of_the_bundled_model():
    for path in (ROOT / "bench" / "figures" / "concepts").glob("*.toml"):
        config = load_toml(path)
        assert (config.models, config.images, config.limit, config.seed) == (("digits",), ("digits",), 1, 0)
