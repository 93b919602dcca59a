"""Read a JSON object whose members are long arrays of small objects, one object at a time. Not a plugin.

``json.load`` keeps the whole document as Python objects, several times the size of the file: gigabytes for the 450 MB
of COCO's training instances, nearly all of it outlines that nobody asked for. Here one record is in memory at a time,
decoded by the standard library's own decoder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import equivengine as eqv
from equivengine_plugins.datasets.annotations import opened_text, shown

MAX_BYTES = 2**32
"""Largest file; the largest of COCO has some 450 MB."""

MAX_VALUE = 2**24
"""Most characters of one record. The largest of COCO have some 100,000."""

_BLOCK = 2**20
_SPACE = re.compile(r"[ \t\r\n]*")


def records(path: Path, members: Sequence[str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Member, place within it, and value, of each object in the named members, in the order of the file.

    Args:
        path: A file that holds one JSON object.
        members: Members of it that have to be arrays of objects. Others are passed over.

    Raises:
        DataError: If the file cannot be read, is not JSON, ends early, or a member is missing, occurs twice, or is
            something else than an array of objects.
    """
    with opened_text(path, MAX_BYTES) as file:
        text = _Text(path, file)
        seen: set[str] = set()
        text.take("{", "a JSON object")
        while text.peek() != "}":
            if seen:
                text.take(",", "a comma between members")
            name = text.value() if text.peek() == '"' else text.fail("the name of a member")
            if name in seen:
                text.fail(f"the member {shown(name)} once", "it stands there twice")
            seen.add(name)
            text.take(":", "a colon")
            wanted = name in members
            if text.peek() != "[":
                if wanted:
                    text.fail(f"an array of objects in {name!r}")
                text.value()
                continue
            for place, value in enumerate(text.elements()):
                if wanted:
                    if not isinstance(value, dict):
                        raise bad_record(path, name, place, "an object", value)
                    yield name, place, value
        text.take("}", "the end of the object")
        if text.peek():
            text.fail("nothing behind the object")
    missing = [member for member in members if member not in seen]
    if missing:
        raise eqv.DataError(
            f"{str(path)!r} lacks {missing[0]!r}",
            expected=f"a JSON object with {', '.join(members)}",
            got=f"members {shown(sorted(seen))}",
            hint="check that it is the file that was published under this name",
        )


def bad_record(path: Path, member: str, place: int, expected: str, got: object) -> eqv.DataError:
    """What to raise for something in a record."""
    return eqv.DataError(
        f"{member}[{place}] of {str(path)!r} is not usable",
        expected=expected,
        got=shown(got),
        hint="copy the file again; correct it if you made it yourself",
    )


class Record:
    """Access to the fields of one record by type."""

    def __init__(self, path: Path, member: str, place: int, values: dict[str, Any]) -> None:
        self._where = (path, member, place)
        self._values = values

    def integer(self, field: str) -> int:
        """A whole number of at most 64 bits.

        Raises:
            DataError: If it is missing or something else.
        """
        value = self._values.get(field)
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise self.bad(field, "a whole number")
        return value

    def size(self, field: str) -> float:
        """A finite number that is not negative.

        Raises:
            DataError: If it is missing or something else.
        """
        value = self._values.get(field)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63:  # NaN as well
            raise self.bad(field, "a number, 0 or more")
        return float(value)

    def text(self, field: str) -> str:
        """A text.

        Raises:
            DataError: If it is missing or something else.
        """
        value = self._values.get(field)
        if not isinstance(value, str):
            raise self.bad(field, "a text")
        return value

    def bad(self, field: str, expected: str) -> eqv.DataError:
        """What to raise for a field."""
        got = self._values.get(field, "nothing of that name")
        return bad_record(*self._where, f"{field}: {expected}", got)


class _Text:
    """A window on the text of a file that moves forward."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self._text = ""
        self._at = 0
        self._passed = 0  # characters of the file before the window
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # matches everywhere
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, character: str, expected: str) -> None:
        """Step over a character that has to come."""
        if self.peek() != character:
            self.fail(expected)
        self._at += 1

    def elements(self) -> Iterator[Any]:
        """The values of an array."""
        self.take("[", "an array")
        first = True
        while self.peek() != "]":
            if not first:
                self.take(",", "a comma between elements")
            first = False
            yield self.value()
        self._at += 1

    def value(self) -> Any:
        """The value that comes next, whole."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError:
                self.fail("values nested no deeper than Python reads", "deeper ones")
            except ValueError as error:
                # Bad, or not all in the window yet: twice as much decides, at the cost of as much again.
                if len(self._text) - self._at > MAX_VALUE:
                    self.fail(f"values of at most {MAX_VALUE:,} characters", "a longer one, or one that is not JSON")
                if not self._more():
                    self.fail("a JSON value", self._reason(error))
                continue
            if end == len(self._text) and self._more():
                continue  # a number may go on
            self._at = end
            return value

    def fail(self, expected: str, got: str | None = None) -> NoReturn:
        """Raise.

        Raises:
            DataError: Always.
        """
        if got is None:
            following = self._text[self._at : self._at + 20]
            got = shown(following) if following else "the end of the file"
        raise eqv.DataError(
            f"{str(self._path)!r} cannot be read as JSON near character {self._passed + self._at + 1:,}",
            expected=expected,
            got=got,
            hint="copy the file again: it may have been cut off",
        )

    def _reason(self, error: ValueError) -> str:
        if not isinstance(error, json.JSONDecodeError):
            return str(error)
        cut = error.pos >= len(self._text.rstrip()) or error.msg.startswith("Unterminated string")
        return f"{error.msg[:1].lower()}{error.msg[1:]}{', where the file ends' if cut else ''}"

    def _more(self) -> bool:
        """Move the window to where reading stands and at least double what is left in it; False at the end."""
        rest = self._text[self._at :]
        block = self._file.read(max(_BLOCK, len(rest)))
        self._passed += self._at
        self._text, self._at = rest + block, 0
        return bool(block)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
