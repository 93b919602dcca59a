"""Pages of the site that stand elsewhere in the repository: README, CONTRIBUTING, CHANGELOG.

A page of `docs/` that holds ```` ```{include} ../README.md ```` shows that file. Its links, which are right where the
file stands, are made right for where it is shown.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

INCLUDE = re.compile(r"^```\{include\} (?P<file>\S+)\n```$", re.MULTILINE)
LINK = re.compile(r"(?P<start>\]\()(?P<target>(?!https?:|#)[^)\s#]+)")


def included(text: str, page: Path) -> tuple[str, list[Path]]:
    """A page with the files that it includes, and the list of these.

    Args:
        text: Source of the page.
        page: Where it stands.
    """
    files = []

    def shown(match: re.Match[str]) -> str:
        file = (page.parent / match["file"]).resolve()
        files.append(file)
        return LINK.sub(
            lambda link: link["start"] + moved(link["target"], file, page), file.read_text(encoding="utf-8")
        )

    return INCLUDE.sub(shown, text), files


def moved(target: str, file: Path, page: Path) -> str:
    """A relative link of a file, as it must be written on the page that shows the file.

    A link to a file that some page shows leads to that page.
    """
    found = (file.parent / target).resolve()
    return os.path.relpath(shown_on(page.parent).get(found, found), page.parent)


def shown_on(folder: Path) -> dict[Path, Path]:
    """Files that pages of a folder show in place of a text of their own, and these pages."""
    pages = sorted(folder.glob("*.md"))
    found = ((page, INCLUDE.search(page.read_text(encoding="utf-8"))) for page in pages)
    return {(page.parent / match["file"]).resolve(): page.resolve() for page, match in found if match}


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(name))
    source[0], files = included(source[0], page)
    for file in files:
        app.env.note_dependency(file)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", _read)
    return {"version": "1", "parallel_read_safe": True}
