"""The site in a browser, opened from a folder: no page is wider than a phone, dark is dark, and the search finds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]

#: Each page in a frame of a phone's width, one after the other.
WATCH = """<!doctype html><html><body style="margin:0">
<iframe id="frame" style="width:390px;height:9000px;border:0"></iframe>
<pre id="found"></pre>
<script>
const frame = document.getElementById("frame"), pages = PAGES, found = {};
frame.onload = () => {
  const page = frame.contentDocument, name = pages.shift();
  const style = frame.contentWindow.getComputedStyle(page.body);
  found[name] = { width: page.documentElement.scrollWidth, background: style.backgroundColor, ink: style.color };
  if (pages.length) frame.src = pages[0];
  else document.getElementById("found").textContent = JSON.stringify(found);
};
frame.src = pages[0];
</script></body></html>"""


def dumped(address: str, profile: Path, *options: str) -> str:
    """What a browser makes of an address."""
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
            "--allow-file-access-from-files", "--virtual-time-budget=20000", *options, "--dump-dom", address,
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stdout


def watched(site: Path, pages: list[str], folder: Path, *options: str) -> dict[str, dict[str, str]]:
    """Width and colors of pages at the width of a phone."""
    (site / "watch.html").write_text(WATCH.replace("PAGES", json.dumps(pages)), encoding="utf-8")
    found = re.search(r'<pre id="found">(.+?)</pre>', dumped((site / "watch.html").as_uri(), folder, *options))
    (site / "watch.html").unlink()
    assert found, "the browser did not come to an end"
    return json.loads(found[1])


@pytest.fixture(scope="module")
def light(site, tmp_path_factory):
    """All pages, on a screen that wants them light."""
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    found = watched(site, pages, tmp_path_factory.mktemp("light"))
    assert len(found) == len(pages) > 30
    return found


def test_no_page_is_wider_than_a_phone(light):
    assert {name: page["width"] for name, page in light.items() if int(page["width"]) > 390} == {}


def test_a_dark_screen_gets_a_dark_page(site, light, tmp_path):
    def brightness(colour: str) -> int:
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    dark = watched(site, ["index.html"], tmp_path, "--blink-settings=preferredColorScheme=0")["index.html"]
    assert brightness(light["index.html"]["background"]) > 600 > brightness(light["index.html"]["ink"])
    assert brightness(dark["background"]) < 200 < brightness(dark["ink"])


def test_the_search_works_from_a_folder(site, tmp_path):
    results = dumped(f"{(site / 'search.html').as_uri()}?q=null+space", tmp_path)
    assert re.search(r"found \d+ pages? matching", results)
    assert 'href="numerics.html' in results
