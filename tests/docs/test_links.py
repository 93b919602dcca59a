"""Links of the pages lead to files and headings that are there; no site is built for it, and no network is asked."""

import re
from urllib.parse import unquote, urlsplit

import pytest
from page_text import ROOT, Page, pages

PAGES = pages()


def broken(page: Page) -> list[str]:
    """Relative links of a page that lead nowhere."""
    found = []
    for target, line in page.links():
        path, _, anchor = target.partition("#")
        if urlsplit(target).scheme:
            continue
        file = (page.path.parent / unquote(path)).resolve() if path else page.path
        if not file.exists():
            found.append(f"{page.name}:{line}: there is no {path}")
        elif anchor and file.suffix == ".md":
            text = page.text if file == page.path else file.read_text(encoding="utf-8")
            if anchor not in Page(file, text).anchors():
                found.append(f"{page.name}:{line}: {path or page.path.name} has no heading {anchor!r}")
    return found


def test_there_are_pages_and_links():
    names = {page.name for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "docs/install.md", "docs/reference/cli.md"} <= names
    assert sum(len(list(page.links())) for page in PAGES) > 80


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files_and_headings(page):
    assert broken(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_external_links_are_whole_addresses(page):
    for target, line in page.links():
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https", f"{page.name}:{line}: {target}"
            assert re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), f"{page.name}:{line}: {target}"
            assert " " not in unquote(target), f"{page.name}:{line}: {target}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a](nowhere.md)", "there is no nowhere.md"),
        ("![a](images/nothing.png)", "there is no images/nothing.png"),
        ("[a](install.md#no-such-heading)", "install.md has no heading 'no-such-heading'"),
        ("# One\n\n[a](#two)", "install.md has no heading 'two'"),
        ("[a][b]\n\n[b]: gone.md", "there is no gone.md"),
    ],
)
def test_a_broken_link_is_found(text, message):
    assert [message in line for line in broken(Page(ROOT / "docs" / "install.md", text))] == [True]


def test_anchors_are_those_of_github():
    text = "# A `b` & c\n\n## Twice\n\n### Twice\n\n## docs/x: y_z\n\n```sh\n# no heading\n```\n"
    assert Page(ROOT / "README.md", text).anchors() == {"a-b--c", "twice", "twice-1", "docsx-y_z"}
