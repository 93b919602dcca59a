"""Text as a terminal may safely show it."""

from __future__ import annotations

import shlex
from os import PathLike, fspath

from equivengine.contracts.wording import printable as printable


def command_line(*words: str | PathLike[str]) -> str:
    """Words as one types them in a shell."""
    return shlex.join(fspath(word) for word in words)


def in_line(text: str) -> str:
    r"""A foreign name within a line of ours: line breaks are escaped too.

    >>> in_line("a\nb")
    'a\\nb'
    """
    return printable(text).replace("\n", "\\n")
