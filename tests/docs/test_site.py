"""The site builds without a warning, holds every page, and needs no network: neither to build nor to be read."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
#: Attributes by which a page makes a browser load something.
LOADS = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "src"), ("iframe", "src"), ("object", "data")}
#: Links that say something about a page and are not followed by themselves.
NOT_LOADED = {"index", "search", "next", "prev", "canonical"}
sys.path.insert(0, str(ROOT / "tools"))

from docs_site.links import named  # noqa: E402
from docs_site.pages import included  # noqa: E402


def navigation() -> list[str]:
    """Pages in the navigation, as paths below docs/, in their order."""
    found, folder = [], DOCS
    for page in [DOCS / "index.md", *sorted((DOCS / "reference").glob("*.md"))]:
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            entries = [line for line in tree.splitlines() if line and not line.startswith(":")]
            names = [re.sub(r".*<(.*)>", r"\1", entry) for entry in entries]
            folder = page.parent
            paths = [page if name == "self" else folder / f"{name}.md" for name in names]
            found += [path.relative_to(DOCS).as_posix() for path in paths]
    return found


def test_every_page_is_in_the_navigation_once_and_every_entry_is_a_page():
    assert sorted(navigation()) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


class Found(HTMLParser):
    """What a page loads, where its links lead, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        relation = set((given.get("rel") or "").split())
        for name, value in given.items():
            if (tag, name) in LOADS and value and not relation & NOT_LOADED:
                self.loaded.append(value)


@pytest.fixture(scope="module")
def read(site):
    """What stands on each page of the site."""
    return {path: Found(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_page_is_built(site):
    for page in navigation():
        assert (site / page).with_suffix(".html").is_file()


def test_pages_load_only_files_of_the_site(site, read):
    for path, found in read.items():
        assert found.loaded
        for target in found.loaded:
            parts = urlsplit(target)
            assert parts.scheme + parts.netloc == "", f"{path.name} loads {target}"
            assert (path.parent / unquote(parts.path)).is_file(), f"{path.name} loads {target}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        for target in re.findall(r"url\(\s*['\"]?([^'\")]+)", text):
            assert target.startswith(("data:", "#")) or (style.parent / target).is_file(), f"{style.name}: {target}"
        assert not re.search(r"@import\s+(?:url\()?['\"]?(?:https?:)?//", text), style.name


def test_links_lead_to_files_and_anchors_of_the_site(site, read):
    for path, found in read.items():
        for target in found.links:
            parts = urlsplit(target)
            if parts.scheme:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert file.is_file(), f"{path.name} links to {target}"
            if parts.fragment and file.suffix == ".html":
                assert unquote(parts.fragment) in read[file].anchors, f"{path.name} links to {target}"


def test_the_readme_is_the_home_page(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "measures a small vision transformer" in text
    assert 'href="install.html"' in text
    assert 'href="contributing.html"' in text


def test_code_that_names_something_is_a_link(read):
    links = {path.name: found.links for path, found in read.items()}
    assert "reference/cli.html#equivengine-report" in links["index.html"]
    assert "reference/linalg.html#equivengine.linalg.svd" in links["numerics.html"]
    assert "reference/contract.html#equivengine.Probe.findings" in links["report.html"]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("eqv.load_images", "equivengine.load_images"),
        ("JacobianOperator.coverage()", "equivengine.JacobianOperator.coverage"),
        ("equivengine.linalg.Subspace(rows)", "equivengine.linalg.Subspace"),
        ("Subspace", "equivengine.linalg.Subspace"),
        ("match", None),
        ("svd", None),
        ("x.shape", None),
        ("equivengine show", None),
        ("LEVEL", None),
    ],
)
def test_code_is_taken_for_a_name_only_where_it_is_one(code, name):
    assert named(code) == name


def test_public_names_can_be_linked_to(site, read):
    anchors = read[site / "reference" / "linalg.html"].anchors
    assert {"equivengine.linalg.svd", "equivengine.linalg.Subspace.random_null"} <= anchors
    text = (site / "reference" / "contract.html").read_text(encoding="utf-8")
    assert re.search(r'<a class="reference internal" href="[^"]*#equivengine.LoadedModel"', text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](docs/svd.md#x) ![b](docs/images/ldlc.png)", "[a](svd.md#x) ![b](images/ldlc.png)"),
        ("[a](CONTRIBUTING.md), [b](LICENSE)", "[a](contributing.md), [b](../LICENSE)"),
        ("[a](https://arxiv.org/abs/2401.15568), [b](#in-python)", None),
    ],
)
def test_links_of_a_page_from_elsewhere_are_made_right(tmp_path, text, shown):
    for name in ("docs", "docs/images"):
        (tmp_path / name).mkdir()
    (tmp_path / "FILE.md").write_text(text)
    (tmp_path / "docs" / "contributing.md").write_text("```{include} ../CONTRIBUTING.md\n```\n")
    source = "```{include} ../FILE.md\n```\n\nmore"
    (tmp_path / "docs" / "file.md").write_text(source)
    assert included(source, tmp_path / "docs" / "file.md") == (f"{shown or text}\n\nmore", [tmp_path / "FILE.md"])
