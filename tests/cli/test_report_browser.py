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
    flips,
    background: style.backgroundColor,
    ink: style.color,
  }});
}};
</script></body></html>"""


def watched(page: Path, folder: Path, width: int, *options: str) -> dict:
    """What a browser makes of a page at a width in pixels."""
    folder.mkdir(exist_ok=True)
    shutil.copy(page, folder / "page.html")
    (folder / "watch.html").write_text(WATCH.format(width=width))
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
    assert found["images"]
    assert all(found["images"])
