"""Tables as CSV and Parquet, written row by row: a file of any length takes the memory of one part of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import BinaryIO, Literal, Protocol, Self

from equivengine.errors import EngineError
from equivengine.report.tables import Cells, Column

Format = Literal["csv", "parquet"]

#: Cells that begin so are formulas to a spreadsheet (OWASP, CSV injection; the wide forms count in East Asian ones).
#: They get an apostrophe in front, and so do those that begin with one: whoever takes one off has what was stored.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")
#: Characters of CSV that are written at once.
_LINES = 1 << 16
#: A row group of Parquet has so many cells, or characters in its texts: what is in memory while it is gathered.
GROUP_CELLS, GROUP_TEXT = 1 << 16, 1 << 21


class Writer(Protocol):
    """Takes the rows of a table, one after the other, and writes them to a stream.

    A context manager: what is left is written at its end, unless there was an error. The stream stays open.
    """

    def __enter__(self) -> Self: ...

    def append(self, row: Cells) -> None:
        """Add a row."""

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None: ...


#: Makes a `Writer` of a stream, columns, and facts about the table: its name, its run.
Opener = Callable[[BinaryIO, Sequence[Column], Mapping[str, str]], Writer]


def opener(form: Format) -> Opener:
    """What writes a format.

    Raises:
        EngineError: If a package is missing.
    """
    if form == "csv":
        return CsvWriter
    try:
        import pyarrow  # noqa: F401  asked for before anything is read or written
    except ModuleNotFoundError as error:
        raise EngineError(
            "Parquet files need a package that is not installed", got=error, hint='pip install "equivengine[parquet]"'
        ) from error
    return ParquetWriter


def write_rows(writer: Writer, rows: Iterable[Cells]) -> None:
    """Write all rows, and what ends a file."""
    with writer:
        for row in rows:
            writer.append(row)


class CsvWriter:
    """RFC 4180, UTF-8: texts in quotes, numbers without, nothing where there is no value.

    Floats are the shortest texts that give the same bits again; not finite ones are NaN, Inf and -Inf. A CSV file has
    no place for facts about the run.

    Args:
        file: Where to.
        columns: The columns; their names are the first line.
        facts: Not used.
    """

    def __init__(self, file: BinaryIO, columns: Sequence[Column], facts: Mapping[str, str]) -> None:
        self._file = file
        self._ways = [
            _number if column.kind in ("number", "integer") else _flag if column.kind == "flag" else _text
            for column in columns
        ]
        self._lines = [",".join(_text(column.name) for column in columns)]
        self._size = 0

    def append(self, row: Cells) -> None:
        """Add a row."""
        line = ",".join(way(cell) for way, cell in zip(self._ways, row, strict=True))
        self._lines.append(line)
        self._size += len(line)
        if self._size > _LINES:
            self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            self._write()

    def _write(self) -> None:
        # names of files may hold bytes that are no UTF-8: they come as \udc80 and so on
        self._file.write("".join(f"{line}\r\n" for line in self._lines).encode("utf-8", "backslashreplace"))
        self._lines.clear()
        self._size = 0


def _text(value: str | None) -> str:
    if value is None:
        return ""
    value = f"'{value}" if value.startswith(FORMULA) else value
    return '"' + value.replace('"', '""') + '"'


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
    return repr(value)


def _flag(value: bool | None) -> str:
    return "" if value is None else "true" if value else "false"


class ParquetWriter:
    """One column of Parquet for each column; unit, description and group are metadata of its field.

    Rows are written in groups of bounded size; a small table is one group.

    Args:
        file: Where to.
        columns: The columns.
        facts: Metadata of the file.
    """

    def __init__(self, file: BinaryIO, columns: Sequence[Column], facts: Mapping[str, str]) -> None:
        import pyarrow
        from pyarrow import parquet

        types = {
            "text": pyarrow.string(),
            "number": pyarrow.float64(),
            "integer": pyarrow.int64(),
            "flag": pyarrow.bool_(),
        }
        fields = []
        for column in columns:
            said = {"unit": column.unit, "description": column.description, "group": column.group}
            metadata = {key: _utf8(value) for key, value in said.items() if value}
            fields.append(pyarrow.field(column.name, types[column.kind], metadata=metadata))
        self._schema = pyarrow.schema(fields, metadata={key: _utf8(value) for key, value in facts.items()})
        self._texts = [place for place, column in enumerate(columns) if column.kind == "text"]
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[Cells] = []
        self._characters = 0
        self._groups = 0

    def append(self, row: Cells) -> None:
        """Add a row."""
        self._rows.append(row)
        self._characters += sum(len(row[place] or "") for place in self._texts)
        if len(self._rows) * len(self._schema) >= GROUP_CELLS or self._characters >= GROUP_TEXT:
            self._write_group()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if kind is None:
                if self._rows or not self._groups:
                    self._write_group()
                self._writer.close()
        finally:
            self._writer.is_open = False  # else it would end the file when it is let go of, and complain

    def _write_group(self) -> None:
        import pyarrow

        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        for place in self._texts:
            columns[place] = tuple(None if text is None else _utf8(text) for text in columns[place])
        arrays = [pyarrow.array(values, kind.type) for values, kind in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows.clear()
        self._characters = 0
        self._groups += 1


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
