"""What commands print on stdout: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from equivengine.cli.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: Width where stdout is no terminal, so that logs and pipes keep tables whole.
WIDTH = 100


def console() -> Console:
    """A console on stdout; plain where it is no terminal or NO_COLOR is set."""
    from rich.console import Console

    class Pipe(Console):
        def on_broken_pipe(self) -> None:  # rich would exit; `equivengine.cli.main.run` knows better
            raise BrokenPipeError

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH
    return Pipe(width=width, highlight=False, markup=False, soft_wrap=False)


def print_json(document: dict[str, Any]) -> None:
    """One JSON document; NaN and infinity become null."""
    click.echo(json.dumps(_finite(document), indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(literal(cell) for cell in row))
    console().print(table)


def literal(text: str, style: str = "") -> Text:
    """Text that rich takes as it is; names from files and plugins may hold brackets and control characters."""
    from rich.text import Text

    return Text(printable(text), style=style)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
