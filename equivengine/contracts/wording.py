"""How numbers and foreign texts are written for people: in tables, sentences and pages alike."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable


def number(value: float) -> str:
    """Four significant digits; powers of ten where zeros would pile up; "-" for what was not measured."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    if value == int(value) and size < 1e7:
        return f"{int(value):,}"
    if size < 1e-3:
        return f"{value:.3g}"
    if size >= 1e6:
        return f"{value:.3e}"
    return f"{value:,.0f}" if size >= 999.95 else f"{value:.4g}"


def between(interval: tuple[float, float]) -> str:
    """An interval, both ends as `number` writes them: ``"2.487 .. 18.04"``."""
    return f"{number(interval[0])} .. {number(interval[1])}"


def answer(value: float) -> str:
    """``"yes"`` of 1, ``"no"`` of 0, as `number` writes it of anything else.

    >>> answer(1.0), answer(0.0), answer(float("nan"))
    ('yes', 'no', '-')
    """
    return {1.0: "yes", 0.0: "no"}.get(value) or number(value)


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with what it counts, in the singular of one.

    >>> counted(1, "row"), counted(30000, "row"), counted(0, "match", "matches")
    ('1 row', '30,000 rows', '0 matches')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def suggest(name: str, known: Iterable[str]) -> str:
    """The known names closest to ``name``, or all of them.

    >>> suggest("model", ["models", "for_models", "order"]), suggest("x", ["cats", "dogs"])
    ("perhaps 'models'", 'cats, dogs')
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    likeness = [difflib.SequenceMatcher(None, name, one).ratio() for one in close]
    close = [one for one, like in zip(close, likeness, strict=True) if like > likeness[0] - 0.2]
    return ("perhaps " + " or ".join(map(repr, close))) if close else (", ".join(known) or "nothing: none is there")


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


def in_unit(text: str, unit: str) -> str:
    """A text with ``unit`` in place of the word "pixel", for inputs that are no images; plurals alike."""
    return text if unit == "pixel" else re.sub(r"\bpixel(s?)\b", rf"{unit}\1", text)
