"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def execution_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--device, --executor, --progress, --json."""
    decorators: list[Decorator] = [
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
        click.option("--executor", default="serial", show_default=True, help="Where units run; see `ls executors`."),
        click.option(
            "--progress",
            type=click.Choice(["auto", "plain", "json", "none"]),
            default="auto",
            show_default=True,
            help="Progress on stderr: a bar on a terminal, lines elsewhere, JSON lines, or nothing.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout at the end."),
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json alone."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)
