"""Text as a terminal may safely show it."""

from __future__ import annotations

import shlex
from os import PathLike, fspath


def printable(text: str) -> str:
    r"""Escape control characters other than line breaks: file names and stored texts are not to drive a terminal.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if c == "\n" or not _is_control(c) else c.encode("unicode_escape").decode() for c in text)


def _is_control(character: str) -> bool:
    code = ord(character)
    # C0, DEL, C1, and the marks that reverse the direction of what follows.
    return code < 0x20 or 0x7F <= code < 0xA0 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069


def command_line(*words: str | PathLike[str]) -> str:
    """Words as one types them in a shell."""
    return shlex.join(fspath(word) for word in words)
