"""The pages in a browser: all images load, nothing is wider than the screen, pictures flip, dark is dark.

A page that holds no program is watched from another one, in a frame.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_cases import HOSTILE, SPEAKER

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]

WATCH = """<!doctype html><html><body style="margin:0">
<iframe id="frame" src="page.html" style="width:{width}px;height:9000px;border:0"></iframe>
<pre id="found"></pre>
<script>
const frame = document.getElementById("frame");
frame.onload = () => {{  // all images are loaded
  const page = frame.contentDocument, images = [...page.images];
  page.querySelectorAll("details").forEach(part => part.open = true);
  const place = part => {{ const box = part.getBoundingClientRect(); return [Math.round(box.x), Math.round(box.y)]; }};
  const flips = [...page.querySelectorAll(".picture input")].map(input => {{
    const label = input.closest("label"), first = label.parentElement.querySelector(".first img");
    const before = place(label.querySelector("img"));
    input.click();
    const over = place(label.querySelector("img"));
    const seen = page.elementFromPoint(over[0] + 20, over[1] + 20) === label.querySelector("img");
    input.click();
    return {{ before, over, first: place(first), back: place(label.querySelector("img")), seen }};
  }});
  const style = getComputedStyle(page.body);
  document.getElementById("found").textContent = JSON.stringify({{
    images: images.map(image => image.naturalWidth),
    width: page.documentElement.scrollWidth,
    rows: [...page.querySelectorAll("table.side tbody td:first-child")].map(cell => cell.offsetWidth),
    shown: [...page.querySelectorAll("table.side td.n")].map(cell => cell.getBoundingClientRect().right),
    flips,
    background: style.backgroundColor,
    ink: style.color,
  }});
}};
</script></body></html>"""


def watched(given: Path, folder: Path, width: int, *options: str, page: str = WATCH) -> dict:
    """What a browser makes of a page at a width in pixels, seen from another page."""
    folder.mkdir(exist_ok=True)
    shutil.copy(given, folder / "page.html")
    (folder / "watch.html").write_text(page.format(width=width))
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
            "--allow-file-access-from-files", "--window-size=1400,1000", "--virtual-time-budget=20000", *options,
            "--dump-dom", (folder / "watch.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    assert found[1], done.stderr[-2000:]
    return json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


@pytest.fixture
def page(cli, measure, toys, tmp_path):
    """The report of a run of a hostile probe on three photos."""
    toys.install("speaker", SPEAKER.format(text=HOSTILE, version="1"))
    measure(probe="speaker")
    cli("report", tmp_path / "run")
    return tmp_path / "run" / "report.html"


def test_on_a_phone_nothing_is_wider_than_the_screen_and_pictures_flip(page, tmp_path):
    found = watched(page, tmp_path / "phone", 390)
    assert found["width"] <= 390
    assert min(found["rows"]) > 250  # what a number is stands on lines of its own, above it
    assert max(found["shown"]) <= 390  # no number is out of sight
    assert len(found["images"]) == 4 + 6
    assert all(found["images"])
    assert len(found["flips"]) == 3
    for flip in found["flips"]:
        assert flip["over"] == flip["first"]
        assert flip["before"] == flip["back"] != flip["first"]
        assert flip["seen"]


def test_a_dark_screen_gets_a_dark_page(page, tmp_path):
    light, dark = watched(page, tmp_path / "light", 1200), watched(page, tmp_path / "dark", 1200, "--force-dark-mode")

    def brightness(colour: str) -> int:
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert brightness(light["background"]) > 600 > brightness(light["ink"])
    assert brightness(dark["background"]) < 200 < brightness(dark["ink"])


def test_a_comparison_fits_a_phone_too(cli, measure, page, tmp_path):
    measure("--model", "toy?seed=1", probe="speaker", out=tmp_path / "other")
    cli("compare", tmp_path / "run", tmp_path / "other", "--out", tmp_path / "compare.html")
    found = watched(tmp_path / "compare.html", tmp_path / "phone", 390)
    assert found["width"] <= 390
    assert min(found["rows"]) > 250
    assert max(found["shown"]) <= 390
    assert found["images"]
    assert all(found["images"])


SORT = """<!doctype html><html><body style="margin:0">
<iframe id="frame" src="page.html" style="width:{width}px;height:9000px;border:0"></iframe>
<pre id="found"></pre>
<script>
const frame = document.getElementById("frame");
frame.onload = () => {{
  const page = frame.contentDocument, body = page.getElementById("board").tBodies[0];
  const heads = [...page.querySelectorAll("#board thead th")];
  const order = () => [...body.rows].map(row => row.cells[0].dataset.key);
  const clicked = column => {{
    const button = heads[column].querySelector("button");
    if (button === null) return "no program";
    button.click();
    return [heads.map(head => head.getAttribute("aria-sort")), order()];
  }};
  const before = order();
  document.getElementById("found").textContent = JSON.stringify({{
    before, clicks: [1, 1, 1, 0, 0, 2].map(clicked), width: page.documentElement.scrollWidth, color: page.bgColor,
  }});
}};
</script></body></html>"""


@pytest.fixture
def board(cli, measure, toys, tmp_path):
    """A leaderboard of three models; one was measured with a gain, so that its columns differ."""
    toys.install("speaker", SPEAKER.format(text=HOSTILE, version="1"))
    for seed in range(3):
        measure("--model", f"toy?seed={seed}", "--limit", 1 + seed, probe="speaker", out=tmp_path / f"run{seed}")
    measure("--model", "toy?seed=1", "--set", "gain=3", probe="speaker", out=tmp_path / "run3")
    runs = [tmp_path / f"run{place}" for place in range(4)]
    cli("leaderboard", *runs, "--out", tmp_path / "board.html")
    table = cli("leaderboard", *runs, "--json").document
    return tmp_path / "board.html", table


def test_a_click_on_a_heading_sorts_and_empty_cells_come_last(board, tmp_path):
    path, table = board
    found = watched(path, tmp_path / "wide", 1300, page=SORT)
    models = [row["model"] for row in table["models"]]
    assert found["before"] == models

    def ordered(place: int, down: bool) -> list[str]:
        values = {row["model"]: list(row["entries"].values())[place]["value"] for row in table["models"]}
        known = [model for model in models if values[model] is not None]
        known.sort(key=lambda model: values[model], reverse=down)
        return known + [model for model in models if values[model] is None]

    first, second, third, by_name, by_name_again, empty = found["clicks"]
    assert first == [[None, "descending", *[None] * (len(first[0]) - 2)], ordered(0, True)]
    assert second == [[None, "ascending", *[None] * (len(first[0]) - 2)], ordered(0, False)]
    assert third == first
    assert by_name[1] == sorted(models)
    assert by_name_again[1] == sorted(models, reverse=True)
    assert len(empty[1]) == 3


def test_a_leaderboard_fits_a_phone(board, tmp_path):
    assert watched(board[0], tmp_path / "phone", 390, page=SORT)["width"] <= 390


def test_another_program_does_not_run(board, tmp_path):
    path, _ = board
    text = path.read_text(encoding="utf-8").replace("<footer>", "<script>document.body.remove()</script><footer>")
    text = text.replace("const body = table.tBodies[0];", "const body = table.tBodies[0]; ")
    (tmp_path / "changed.html").write_text(text, encoding="utf-8")
    found = watched(tmp_path / "changed.html", tmp_path / "changed", 1300, page=SORT)
    assert found["clicks"] == ["no program"] * 6
