"""The fenced blocks of README.md, CONTRIBUTING.md and the pages in docs/, and what is said above each of running it.

A comment directly above a fence may say

    <!-- run -->             the output shown is what the commands print; `tools/refresh_readme.py` writes it anew
    <!-- run: slow -->       the same, in `make test-slow`
    <!-- not run: REASON --> nobody runs it here, for one of `NOT_RUN`
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Why a block may stay unexecuted.
NOT_RUN = ("measures for an hour",)
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>(?:not )?run\b[^\n]*?) -->\n)?(?P<indent> *)(?P<fence>`{3,})(?P<language>[^\n`]*)\n"
    r"(?P<body>.*?)^(?P=indent)(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its fence, its language, its text, and the mark above it."""

    page: str
    line: int
    language: str
    body: str
    mark: str

    @property
    def slow(self) -> bool:
        """Whether it is left to `make test-slow`."""
        return self.mark == "run: slow"

    @property
    def not_run(self) -> str | None:
        """Why nobody runs it, if so."""
        return self.mark.partition("not run:")[2].strip() or None if self.mark.startswith("not run") else None

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Commands in order, each with the output shown: of `console` after `$ `, of other languages line by line."""
        joined = re.sub(r"\\\n\s*(?:> )?", "", self.body)
        if self.language == "console":
            parts = re.split(r"^\$ (.*)\n", joined, flags=re.MULTILINE)
            return list(zip(parts[1::2], parts[2::2], strict=True))
        return [(line, "") for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def found(text: str, page: str = "") -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("fence")) + 1
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        yield Block(page, line, match["language"].strip(), body, match["mark"] or "")


def pages() -> dict[str, str]:
    """Text of every page, by its path in the checkout."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
