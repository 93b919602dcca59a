"""The pages of the repository, and what stands in them: code, links, headings.

`python tests/docs/page_text.py` lists the links that leave the repository, which no test follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]


@cache
def parsed(text: str) -> list[Token]:
    """Markdown, as GitHub's reads it."""
    return MarkdownIt("commonmark").enable("table").parse(text)


@dataclass(frozen=True)
class Code:
    """Code on a page.

    Attributes:
        text: As it stands there.
        language: Of a block, as its fence says; "indented" where there is none; None of code within a line.
        line: Where it begins, from 1.
    """

    text: str
    language: str | None
    line: int


@dataclass(frozen=True)
class Page:
    """A page in Markdown.

    Attributes:
        path: Where it stands.
        text: Its source.
    """

    path: Path
    text: str

    @property
    def name(self) -> str:
        """Its path within the repository."""
        return self.path.relative_to(ROOT).as_posix()

    def code(self) -> Iterator[Code]:
        """Its code: blocks, and what stands between backticks."""
        for token, line in self._tokens():
            if token.type in ("fence", "code_block"):
                language = token.info.split()[0] if token.info.strip() else "text"
                yield Code(token.content, language if token.type == "fence" else "indented", line)
            elif token.type == "code_inline":
                yield Code(token.content, None, line)

    def links(self) -> Iterator[tuple[str, int]]:
        """Targets of its links and images, with their lines."""
        for token, line in self._tokens():
            target = token.attrGet("href") or token.attrGet("src")
            if target is not None:
                yield str(target), line

    def anchors(self) -> set[str]:
        """Anchors of its headings, as GitHub and MyST make them."""
        found: dict[str, int] = {}
        anchors = set()
        for token in parsed(self.text):
            if token.type == "inline" and token.level == 1 and self._heading(token):
                words = "".join(child.content for child in token.children or [])
                slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
                anchors.add(f"{slug}-{found[slug]}" if slug in found else slug)
                found[slug] = found.get(slug, 0) + 1
        return anchors

    def _heading(self, token: Token) -> bool:
        lines = self.text.splitlines()
        return token.map is not None and lines[token.map[0]].startswith("#")

    def _tokens(self) -> Iterator[tuple[Token, int]]:
        for token in parsed(self.text):
            line = token.map[0] + 1 if token.map else 0
            yield token, line
            yield from ((child, line) for child in token.children or [])


@cache
def pages() -> tuple[Page, ...]:
    """All pages: of the documentation, of the repository's root, of the example."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/*.md")]
    return tuple(Page(path, path.read_text(encoding="utf-8")) for path in sorted(paths))


def main() -> None:
    """List external links, each with the places that it stands at."""
    places: dict[str, list[str]] = {}
    for page in pages():
        for target, line in page.links():
            if "://" in target:
                places.setdefault(target, []).append(f"{page.name}:{line}")
    for target, found in sorted(places.items()):
        print(target, *found)


if __name__ == "__main__":
    main()
