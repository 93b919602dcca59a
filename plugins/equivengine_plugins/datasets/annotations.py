"""Read untrusted annotation files: lists, CSV tables, small JSON documents, class names. Not a plugin.

All are UTF-8, with or without a byte-order mark, with any line ends. Whatever is wrong with one is a single `DataError`
that names the file, the line and the next step. Files are read line by line; what a caller keeps is all that stays.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import equivengine as eqv
from equivengine_plugins.datasets import images

MAX_LIST_BYTES = 2**24
"""Largest list or table that is kept whole; the real ones have at most a few MB."""

MAX_DOCUMENT_BYTES = 2**22
"""Largest JSON document that is decoded whole."""

MAX_LINE = 2**20
"""Most characters of one line."""

MAX_NAME = 1000
"""Most characters of a class name."""

_Key = TypeVar("_Key", str, int)


@contextmanager
def opened_text(path: Path, limit: int = MAX_LIST_BYTES) -> Iterator[io.TextIOWrapper]:
    """Open a text file.

    Raises:
        DataError: If it cannot be read, has more than ``limit`` bytes or is not UTF-8.
    """
    with images.opened(path, "an annotation file") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise eqv.DataError(
                f"{str(path)!r} is too large for what it is called",
                expected=f"at most {limit:,} bytes",
                got=f"{size:,} bytes",
                hint="check that it is the file that was published under this name",
            )
        try:
            yield io.TextIOWrapper(file, encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise eqv.DataError(
                f"{str(path)!r} is no UTF-8 text",
                expected="UTF-8",
                got=f"byte 0x{error.object[error.start]:02x}: {error.reason}",
                hint="convert it, for example with iconv -t UTF-8, or copy the file again",
            ) from error


def bad_line(path: Path, number: int, expected: str, got: object) -> eqv.DataError:
    """What to raise for a line of a file, counted from 1."""
    return eqv.DataError(
        f"line {number:,} of {str(path)!r} is not usable",
        expected=expected,
        got=got if isinstance(got, str) and got.isprintable() and 0 < len(got) <= 100 else shown(got),
        hint="copy the file again; correct it if you made it yourself",
    )


def shown(value: object) -> str:
    """A value of unknown size, as an error shows it."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}... ({len(text):,} characters)"


def lines(path: Path, limit: int = MAX_LIST_BYTES) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line, without its end.

    Raises:
        DataError: As `opened_text`, and if a line has more than `MAX_LINE` characters or holds a NUL.
    """
    with opened_text(path, limit) as file:
        for number in itertools.count(1):
            line = file.readline(MAX_LINE + 1)
            if not line:
                return
            if len(line) > MAX_LINE:
                raise bad_line(path, number, f"at most {MAX_LINE:,} characters", "more")
            if "\0" in line:
                raise bad_line(path, number, "text", f"a NUL in {shown(line)}")
            yield number, line.removesuffix("\n")


def filled_lines(path: Path) -> Iterator[tuple[int, str]]:
    """As `lines`; there may be empty ones at the end only, which are left out.

    Raises:
        DataError: As `lines`, and for an empty line before the last one that is not.
    """
    empty = 0
    for number, line in lines(path):
        if not line.strip():
            empty = empty or number
        elif empty:
            raise bad_line(path, empty, "no empty line before the end of the file", "an empty line")
        else:
            yield number, line.strip(" \t")


def rows(path: Path, limit: int = MAX_LIST_BYTES) -> Iterator[tuple[int, list[str]]]:
    """Number of the last line, and fields, of each row of a CSV file that is not empty.

    Raises:
        DataError: As `lines`, and if quotes do not match or a field is too long.
    """
    reader = csv.reader((f"{line}\n" for _, line in lines(path, limit)), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise bad_line(path, reader.line_num, "comma-separated fields with matching quotes", str(error)) from error


def table(path: Path, columns: Sequence[str], limit: int = MAX_LIST_BYTES) -> Iterator[tuple[int, list[str]]]:
    """Line number and the fields of the named columns, in that order, of each row below the header.

    Raises:
        DataError: As `rows`, and if a column is missing or occurs twice or a row has another length than the header.
    """
    found = rows(path, limit)
    number, header = next(found, (1, []))
    if any(header.count(column) != 1 for column in columns):
        expected = f"a header with the columns {', '.join(columns)}"
        raise bad_line(path, number, expected, header or "an empty file")
    taken = [header.index(column) for column in columns]
    for number, row in found:
        if len(row) != len(header):
            raise bad_line(path, number, f"{len(header)} fields", f"{len(row)}: {shown(row)}")
        yield number, [row[place] for place in taken]


def document(path: Path) -> Any:
    """A small JSON document.

    Raises:
        DataError: If it cannot be read, is not JSON or has a key twice.
    """
    with opened_text(path, MAX_DOCUMENT_BYTES) as file:
        text = file.read()
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise eqv.DataError(
            f"{str(path)!r} is no JSON document",
            expected="a whole JSON document",
            got=f"{error or type(error).__name__}",
            hint="copy the file again; correct it if you made it yourself",
        ) from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# -- class names ------------------------------------------------------------------------------------------------------


def unusable_name(name: object) -> str | None:
    """Why something cannot be the name of a class, if it cannot.

    Markup and control characters are text like any other: whoever shows a name has to escape it. Only what cannot be
    stored as UTF-8 text is refused.
    """
    if not isinstance(name, str):
        return f"{type(name).__name__}, no text"
    if not name.strip():
        return "an empty text"
    if len(name) > MAX_NAME:
        return f"a text of {len(name):,} characters, more than {MAX_NAME:,}"
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        return "a text with a NUL or half a surrogate pair"
    return None


def distinct_labels(names: Mapping[_Key, str], path: Path) -> dict[_Key, str]:
    """Labels that tell classes apart: a name that several share gets the class's id in brackets behind it.

    Args:
        names: Name of each class by its id, of all classes that are known, so that a label does not depend on which
            images are there.
        path: Where they come from.

    Raises:
        DataError: If two labels are still equal.
    """
    count = Counter(names.values())
    labels = {key: name if count[name] == 1 else f"{name} ({key})" for key, name in names.items()}
    if len(set(labels.values())) < len(labels):
        twice = next(label for label, occurs in Counter(labels.values()).items() if occurs > 1)
        raise eqv.DataError(
            f"two classes of {str(path)!r} cannot be told apart",
            expected="names that differ",
            got=shown(twice),
            hint="correct the file",
        )
    return labels
