"""``lines:FILE``: texts, one a line, in UTF-8."""

from __future__ import annotations

import operator
from functools import partial
from pathlib import Path
from typing import Any

import equivengine as eqv
from equivengine_plugins.datasets import texts

EQUIVENGINE_API = (1, 0)

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Lines(eqv.Dataset):
    """The lines of a text file that are not blank, in order, without the white space around them.

    Lines end with a line feed, with or without a carriage return before it. A sample is called after the number of its
    line, from 1, and loads as a `str`. Opening the file finds where lines begin; they are decoded when they are asked
    for, so one that is no UTF-8 fails alone.
    """

    name = "lines"
    summary = "texts, one a line of a file"
    examples = ("lines:sentences.txt",)

    def __init__(self, uri: eqv.URI) -> None:
        """Find the lines; none is decoded.

        Raises:
            UsageError: If the address has no path or has an option.
            DataError: If the file cannot be read.
        """
        path = uri.require_path("a text file", "lines:sentences.txt")
        uri.allow_options(())
        self._path = Path(path).expanduser()
        self._places: list[tuple[int, int, int]] = []  # line number, offset, length in bytes
        try:
            if not self._path.is_file():
                raise eqv.DataError(
                    f"the text file {path!r} does not exist",
                    expected="a file with one text a line",
                    got="a directory" if self._path.is_dir() else "nothing",
                    hint="check the path",
                )
            offset = 0
            with self._path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if line.removeprefix(_BYTE_ORDER_MARK if number == 1 else b"").strip():
                        self._places.append((number, offset, len(line)))
                    offset += len(line)
        except OSError as error:
            raise eqv.DataError(f"{path!r} cannot be read", got=error.strerror, hint="check its permissions") from error

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        """The `Sample` at ``index``; its line is decoded now.

        Raises:
            IndexError: If ``index`` is past either end.
            DataError: If the line is no UTF-8, or too long, or gone.
        """
        number, offset, length = self._places[operator.index(index)]
        text = self._text(number, offset, length)
        digest = texts.text_digest(text)
        load = partial(self._load, number, offset, length, digest)
        return eqv.Sample(f"line-{number:06d}", digest, load, details=texts.details(text))

    def _text(self, number: int, offset: int, length: int) -> str:
        where = f"line {number} of {str(self._path)!r}"
        if length > texts.MAX_BYTES:
            raise eqv.DataError(
                f"{where} is too long for a text",
                expected=f"at most {texts.MAX_BYTES:,} bytes",
                got=f"{length:,} bytes",
            )
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                raw = file.read(length)
            text = raw.removeprefix(_BYTE_ORDER_MARK if number == 1 else b"").decode("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise eqv.DataError(
                f"{where} cannot be read",
                expected="UTF-8",
                got=error,
                hint="convert the file, for example with iconv -t UTF-8",
            ) from error
        if not text:
            raise eqv.DataError(
                f"{where} is blank",
                expected="what it held when the file was opened",
                hint="leave the file alone while it is in use",
            )
        return text

    def _load(self, number: int, offset: int, length: int, digest: str) -> str:
        text = self._text(number, offset, length)
        if texts.text_digest(text) != digest:
            raise eqv.DataError(
                f"line {number} of {str(self._path)!r} has changed since it was listed",
                expected=f"sha256 {digest}",
                got=f"sha256 {texts.text_digest(text)}",
                hint="open the file again, and leave it alone while it is in use",
            )
        return text


@eqv.hookimpl
def equivengine_register_datasets() -> list[type[eqv.Dataset]]:
    """Provide `Lines`."""
    return [Lines]
