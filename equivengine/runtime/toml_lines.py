"""On which line of a TOML file each key stands: `tomllib` says it of mistakes in the notation only."""

from __future__ import annotations

import bisect
import re
import tomllib

Place = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACES = re.compile(r"[ \t]*")
_REST = re.compile(r"[^,\]}\n#]*")
_STRINGS = (
    re.compile(r'"""(?:\\.|"{1,2}(?!")|[^"\\])*"{3,5}', re.DOTALL),
    re.compile(r"'''(?:'{1,2}(?!')|[^'])*'{3,5}", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\\n])*"'),
    re.compile(r"'[^'\n]*'"),
)


class TomlLines:
    """The lines of the keys, tables and list entries of a TOML text.

    Args:
        text: The text; `tomllib` has read it without complaint.
    """

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", self._text))]
        self._arrays: dict[Place, int] = {}  # lists of tables, and how many they have so far
        self._lines: dict[Place, int] = {}
        self._document()

    def find(self, place: Place) -> int | None:
        """The line, counted from 1, of a key, a table or a list entry; that of the nearest around it that stands there.

        Args:
            place: Keys and, for list entries, numbers: ``("probes", 0, "set", "steps")``.
        """
        for length in range(len(place), 0, -1):
            if place[:length] in self._lines:
                return self._lines[place[:length]]
        return None

    def places(self) -> list[Place]:
        """All that was found, in order."""
        return list(self._lines)

    def _document(self) -> None:
        table: Place = ()
        while self._skip(_BLANK) < len(self._text):
            line = self._line()
            if self._text[self._at] == "[":
                twice = self._text.startswith("[[", self._at)
                self._at += 1 + twice
                table = self._header(self._keys(), twice, line)
                self._at += 1 + twice
            else:
                self._pair(table)

    def _header(self, keys: list[str], twice: bool, line: int) -> Place:
        place: Place = ()
        for number, key in enumerate(keys):
            place += (key,)
            self._lines.setdefault(place, line)
            last = number == len(keys) - 1
            if last and twice:
                self._arrays[place] = self._arrays.get(place, 0) + 1
            if place in self._arrays:
                place += (self._arrays[place] - 1,)
                self._lines.setdefault(place, line)
        return place

    def _pair(self, table: Place) -> None:
        line, place = self._line(), table
        for key in self._keys():
            place += (key,)
            self._lines.setdefault(place, line)
        self._at += 1  # the equals sign
        self._skip(_SPACES)
        self._value(place)

    def _keys(self) -> list[str]:
        """A key, dotted or not, up to what follows it."""
        keys = []
        while True:
            self._skip(_SPACES)
            if self._text[self._at] in "\"'":
                quoted = self._string()
                keys.append(next(iter(tomllib.loads(f"{quoted} = 0"))))
            else:
                keys.append(self._take(_BARE))
            self._skip(_SPACES)
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _value(self, place: Place) -> None:
        start = self._text[self._at]
        if start in "\"'":
            self._string()
        elif start == "[":
            self._entries("]", place)
        elif start == "{":
            self._entries("}", place)
        else:
            self._take(_REST)

    def _entries(self, end: str, place: Place) -> None:
        """The entries of a list, or of a table in braces."""
        self._at += 1
        number = 0
        while self._text[self._skip(_BLANK)] != end:
            if self._text[self._at] == ",":
                self._at += 1
            elif end == "}":
                self._pair(place)
            else:
                self._lines.setdefault((*place, number), self._line())
                self._value((*place, number))
                number += 1
        self._at += 1

    def _string(self) -> str:
        return next(filter(None, (self._take(form, optional=True) for form in _STRINGS)))

    def _take(self, form: re.Pattern[str], *, optional: bool = False) -> str:
        match = form.match(self._text, self._at)
        if match is None:
            if optional:
                return ""
            raise ValueError(f"line {self._line()} of the file cannot be followed")
        self._at = match.end()
        return match[0]

    def _skip(self, form: re.Pattern[str]) -> int:
        self._take(form)
        return self._at

    def _line(self) -> int:
        return bisect.bisect_right(self._starts, self._at)
