"""Writes the tables of a run as CSV or Parquet, and everything but arrays and pictures as one JSON document.

Units are read once for the columns and once for the rows, one at a time: memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from equivengine.contracts.unit import SampleRef
from equivengine.errors import UsageError
from equivengine.report.formats import Format, opener, write_rows
from equivengine.report.tables import (
    Table,
    UnitRow,
    dictionary,
    each_row,
    long_checks,
    long_scalars,
)
from equivengine.report.wide import wide_tables
from equivengine.store import atomic
from equivengine.store.run import Run, UnitRecord

#: Raised when a column or a field changes its meaning.
DOCUMENT_FORMAT = {"format": "equivengine-export", "format_version": "1.0"}


@dataclass(frozen=True)
class Written:
    """A file of a table.

    Attributes:
        path: Where it is.
        columns: How many columns it has.
        rows: How many rows.
    """

    path: Path
    columns: int
    rows: int


def export_tables(
    run: Run, directory: Path, form: Format, *, probe: str | None = None, overwrite: bool = False
) -> list[Written]:
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
    opened = opener(form)
    tables = [*wide_tables(_rows(run, probe)), long_scalars(), long_checks()]
    said = dictionary(tables)
    heads = [*((table.name, table.columns) for table in tables), (said.name, said.columns)]
    paths = [directory / f"{name}.{form}" for name, _ in heads]
    _refuse_existing(paths, overwrite)
    atomic.make_directory(directory)
    counts = [0] * len(paths)

    def write(files: Sequence[BinaryIO]) -> None:
        counts[:] = [0] * len(paths)
        with contextlib.ExitStack() as stack:
            *writers, last = [
                stack.enter_context(opened(file, columns, _facts(name, run)))
                for file, (name, columns) in zip(files, heads, strict=True)
            ]
            for row in _rows(run, probe):
                for place, (table, writer) in enumerate(zip(tables, writers, strict=True)):
                    for cells in table.rows_of(row):
                        writer.append(cells)
                        counts[place] += 1
            for cells in said.rows:
                last.append(cells)
        counts[-1] = len(said.rows)

    _publish(paths, write, overwrite)
    return [Written(path, len(head[1]), count) for path, head, count in zip(paths, heads, counts, strict=True)]


def export_units(
    run: Run,
    target: Path | BinaryIO,
    form: Format,
    *,
    probe: str | None = None,
    long: bool = False,
    overwrite: bool = False,
) -> None:
    """Write one table of a run to a file or a stream: the units of one probe, or all scalars.

    Args:
        run: The run.
        target: Where to.
        form: "csv" or "parquet".
        probe: This probe only.
        long: A row for each scalar of each unit.
        overwrite: Replace a file that is there.

    Raises:
        UsageError: If there are several probes, or the file is there already and is not to be replaced.
        EngineError, StoreError: As `export_tables`.
    """
    opened = opener(form)
    next(_rows(run, probe))  # or the error that there are none, before anything is written
    tables = [long_scalars()] if long else wide_tables(_rows(run, probe))
    if len(tables) > 1:
        raise UsageError(
            "one file takes the units of one probe",
            expected=f"--probe, one of: {', '.join(table.probe for table in tables)}",
            hint="or pass --long, or a directory",
        )
    (table,) = tables

    def encode(file: BinaryIO) -> None:
        writer = opened(file, table.columns, _facts(table.name, run))
        write_rows(writer, chain.from_iterable(map(table.rows_of, _rows(run, probe))))

    _write(target, encode, overwrite)


def export_table(table: Table, target: Path | BinaryIO, form: Format, *, overwrite: bool = False) -> None:
    """Write a table that is of no single run to a file or a stream. Arguments and errors as for `export_units`."""
    opened = opener(form)

    def encode(file: BinaryIO) -> None:
        write_rows(opened(file, table.columns, _facts(table.name)), table.rows)

    _write(target, encode, overwrite)


def export_document(run: Run, target: Path | BinaryIO, *, probe: str | None = None, overwrite: bool = False) -> None:
    """Write one JSON document (ASCII, one unit a line) with everything but the values of arrays and pictures.

    References, which many units share, are listed once; a unit has the number of its list.

    Numbers are written so that reading gives the same bits; NaN and infinity, which JSON lacks, are the strings "NaN",
    "Infinity" and "-Infinity". Arguments and errors as for `export_tables`.
    """
    next(_rows(run, probe))  # or the error that there are none, before anything is written
    _write(target, lambda file: _encode_document(run, each_row(run, probe), file), overwrite)


def _rows(run: Run, probe: str | None) -> Iterator[UnitRow]:
    return (row for row, _ in each_row(run, probe))


def _facts(table: str, run: Run | None = None) -> dict[str, str]:
    """What a file says of the whole table."""
    facts = {**DOCUMENT_FORMAT, "table": table}
    return facts if run is None else {**facts, "run": str(run.path), "plan_digest": run.plan_digest}


def _encode_document(run: Run, rows: Iterable[tuple[UnitRow, UnitRecord | None]], file: BinaryIO) -> None:
    populations: dict[tuple[SampleRef, ...], int] = {}
    head = {
        **DOCUMENT_FORMAT,
        "run": str(run.path),
        "plan_digest": run.plan_digest,
        "missing": list(run.missing),
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


def _write(target: Path | BinaryIO, encode: Callable[[BinaryIO], None], overwrite: bool) -> None:
    if not isinstance(target, Path):
        encode(target)
        return
    _refuse_existing([target], overwrite)
    atomic.make_directory(target.parent)
    _publish([target], lambda files: encode(files[0]), overwrite)


def _refuse_existing(paths: Iterable[Path], overwrite: bool) -> None:
    for path in paths:
        if path.is_dir():
            raise UsageError(f"{path} is a directory", expected="the name of a file", hint="choose another --out")
        if path.exists() and not overwrite:
            raise _exists(path)


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} is there already", hint="pass --force to replace it, or choose another --out")


def _publish(paths: Sequence[Path], encode: Callable[[Sequence[BinaryIO]], None], overwrite: bool) -> None:
    def write(temporary: Sequence[Path]) -> None:
        with contextlib.ExitStack() as stack:
            encode([stack.enter_context(open(path, "xb")) for path in temporary])

    for path in atomic.publish_all(paths, write, overwrite=overwrite):
        raise _exists(path)
