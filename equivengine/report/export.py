"""Writes the tables of a run as CSV or Parquet, and everything but arrays and pictures as one JSON document."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal

from equivengine.contracts.unit import SampleRef
from equivengine.errors import EngineError, UsageError
from equivengine.report.tables import (
    Table,
    UnitRow,
    dictionary,
    each_row,
    long_checks,
    long_scalars,
    unit_rows,
    wide_table,
)
from equivengine.store import atomic
from equivengine.store.run import Run, UnitRecord

Format = Literal["csv", "parquet"]

#: Raised when a column or a field changes its meaning.
DOCUMENT_FORMAT = {"format": "equivengine-export", "format_version": "1.0"}

#: Cells that begin so are formulas to a spreadsheet (OWASP, CSV injection; the wide forms count in East Asian ones).
#: They get an apostrophe in front, and so do those that begin with one: whoever takes one off has what was stored.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")


def export_tables(
    run: Run, directory: Path, form: Format, *, probe: str | None = None, overwrite: bool = False
) -> list[tuple[Path, Table]]:
    """Write ``units-PROBE`` for each probe, ``scalars``, ``checks`` and ``columns`` into a directory.

    Each file appears whole or not at all.

    Args:
        run: The run.
        directory: Where to; made if it is absent.
        form: "csv" or "parquet".
        probe: This probe only.
        overwrite: Replace files that are there.

    Returns:
        What was written.

    Raises:
        UsageError: If a file is there already, and is not to be replaced; nothing is written then.
        EngineError: If a package is missing.
        StoreError: If there are no results, a shard cannot be read, or a file cannot be written.
    """
    encode = _encoder(form)
    rows = unit_rows(run, probe)
    tables = wide_tables(rows)
    tables += [long_scalars(rows), long_checks(rows)]
    files = [(directory / f"{table.name}.{form}", table) for table in (*tables, dictionary(tables))]
    _refuse_existing([path for path, _ in files], overwrite)
    atomic.make_directory(directory)
    for path, table in files:
        _publish(path, functools.partial(encode, table, run=run), overwrite)
    return files


def export_table(
    run: Run | None, table: Table, target: Path | BinaryIO, form: Format, *, overwrite: bool = False
) -> None:
    """Write one table to a file or a stream; of no run if it is of several. Else as `export_tables`."""
    encode = _encoder(form)
    _write(target, functools.partial(encode, table, run=run), overwrite)


def export_document(run: Run, target: Path | BinaryIO, *, probe: str | None = None, overwrite: bool = False) -> None:
    """Write one JSON document (ASCII, one unit a line) with everything but the values of arrays and pictures.

    References, which many units share, are listed once; a unit has the number of its list.

    Numbers are written so that reading gives the same bits; NaN and infinity, which JSON lacks, are the strings "NaN",
    "Infinity" and "-Infinity". Arguments and errors as for `export_tables`.
    """
    rows = each_row(run, probe)
    first = next(rows)  # or the error that there are none, before anything is written
    _write(target, lambda file: _encode_document(run, chain([first], rows), file), overwrite)


def wide_tables(rows: Iterable[UnitRow]) -> list[Table]:
    """One table for each probe, called ``units-PROBE``; characters that not every file system takes become ``_``."""
    groups: dict[str, list[UnitRow]] = {}
    for row in rows:
        groups.setdefault(row.unit.probe, []).append(row)
    tables: dict[str, Table] = {}
    for probe, group in groups.items():
        name = stem = "units-" + re.sub(r"[^A-Za-z0-9_.+-]+", "_", probe)[:80]
        number = 1
        while name.lower() in tables:  # some file systems do not tell cases apart
            number += 1
            name = f"{stem}-{number}"
        tables[name.lower()] = wide_table(group, name)
    return list(tables.values())


def _encoder(form: Format) -> Any:
    if form == "csv":
        return encode_csv
    try:
        import pyarrow  # noqa: F401  asked for before anything is read or written
    except ModuleNotFoundError as error:
        raise EngineError(
            "Parquet files need a package that is not installed", got=error, hint='pip install "equivengine[parquet]"'
        ) from error
    return encode_parquet


def encode_csv(table: Table, file: BinaryIO, run: Run | None = None) -> None:
    """RFC 4180, UTF-8: texts in quotes, numbers without, nothing where there is no value.

    Floats are the shortest texts that give the same bits again; not finite ones are NaN, Inf and -Inf. A CSV file has
    no place for facts about the run.
    """
    write = [_number if column.kind in ("number", "integer") else _flag if column.kind == "flag" else _text
             for column in table.columns]  # fmt: skip
    lines = [",".join(_text(column.name) for column in table.columns)]
    for cells in zip(*(column.values for column in table.columns), strict=True):
        lines.append(",".join(one(cell) for one, cell in zip(write, cells, strict=True)))
        if len(lines) > 1000:
            _put(file, lines)
    _put(file, lines)


def _put(file: BinaryIO, lines: list[str]) -> None:
    # names of files may hold bytes that are no UTF-8: they come as \udc80 and so on
    file.write("".join(f"{line}\r\n" for line in lines).encode("utf-8", "backslashreplace"))
    lines.clear()


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


def encode_parquet(table: Table, file: BinaryIO, run: Run | None = None) -> None:
    """One column of Parquet for each column; unit, description and group are metadata of its field."""
    import pyarrow
    from pyarrow import parquet

    types = {
        "text": pyarrow.string(),
        "number": pyarrow.float64(),
        "integer": pyarrow.int64(),
        "flag": pyarrow.bool_(),
    }
    fields, arrays = [], []
    for column in table.columns:
        said = {"unit": column.unit, "description": column.description, "group": column.group}
        metadata = {key: _utf8(value) for key, value in said.items() if value}
        fields.append(pyarrow.field(column.name, types[column.kind], metadata=metadata))
        values = column.values
        if column.kind == "text":
            values = [None if value is None else _utf8(value) for value in values]
        arrays.append(pyarrow.array(values, types[column.kind]))
    facts = {**DOCUMENT_FORMAT, "table": table.name}
    if run is not None:
        facts |= {"run": str(run.path), "plan_digest": run.plan_digest}
    schema = pyarrow.schema(fields, metadata={key: _utf8(value) for key, value in facts.items()})
    parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), file, compression="zstd")


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _encode_document(run: Run, rows: Iterable[tuple[UnitRow, UnitRecord | None]], file: BinaryIO) -> None:
    populations: dict[tuple[SampleRef, ...], int] = {}
    head = {
        **DOCUMENT_FORMAT,
        "run": str(run.path),
        "plan_digest": run.plan_digest,
        "missing": run.missing,
        "unneeded": run.unneeded,
    }
    file.write(_json(head)[:-1] + b', "units": [')
    for place, (row, record) in enumerate(rows):
        document = {
            "unit_id": row.unit_id,
            "unit": {
                **row.unit.to_json(),
                "params": json.loads(row.unit.params),
                "references": populations.setdefault(row.unit.references, len(populations)),
            },
            "status": row.status,
            "message": row.message,
        }
        if record is None:
            document |= {"error": row.error, "provenance": row.provenance}
        else:
            document |= {
                "summary": {name: vars(scalar) for name, scalar in record.summary.items()},
                "checks": {name: vars(check) for name, check in record.checks.items()},
                "arrays": list(record.arrays),
                "pictures": list(record.pictures),
                "provenance": record.provenance,
                "probe_provenance": record.probe_provenance,
            }
        file.write((b",\n" if place else b"\n") + _json(document))
    file.write(b'\n], "references": ' + _json([[sample.to_json() for sample in refs] for refs in populations]) + b"}\n")


def _json(value: Any) -> bytes:
    return json.dumps(_without_nan(value), allow_nan=False).encode("ascii")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def _write(target: Path | BinaryIO, encode: Any, overwrite: bool) -> None:
    if not isinstance(target, Path):
        encode(target)
        return
    _refuse_existing([target], overwrite)
    atomic.make_directory(target.parent)
    _publish(target, encode, overwrite)


def _refuse_existing(paths: Iterable[Path], overwrite: bool) -> None:
    for path in paths:
        if path.is_dir():
            raise UsageError(f"{path} is a directory", expected="the name of a file", hint="choose another --out")
        if path.exists() and not overwrite:
            raise _exists(path)


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} is there already", hint="pass --force to replace it, or choose another --out")


def _publish(path: Path, encode: Any, overwrite: bool) -> None:
    def write(temporary: Path) -> None:
        with open(temporary, "xb") as file:
            encode(file)

    if not atomic.publish(path, write, overwrite=overwrite):
        raise _exists(path)
