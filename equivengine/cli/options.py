"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def execution_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--device, --executor, --set-executor, --progress, --json.

    Where work is done may come from the environment; what is measured may not, so that a command means the same
    everywhere.
    """
    decorators: list[Decorator] = [
        click.option(
            "--device",
            default="auto",
            metavar="DEVICE",
            envvar="EQUIVENGINE_DEVICE",
            show_envvar=True,
            show_default=True,
            help="auto, cpu, cuda or cuda:N.",
        ),
        click.option(
            "--executor",
            default="serial",
            metavar="NAME",
            envvar="EQUIVENGINE_EXECUTOR",
            show_envvar=True,
            show_default=True,
            help="Where units run; see `equivengine ls executors`.",
        ),
        click.option(
            "--set-executor",
            "executor_set",
            multiple=True,
            metavar="KEY=VALUE",
            callback=_parsed,
            help="A parameter of the executor; repeatable.",
        ),
        click.option(
            "--progress",
            type=click.Choice(["auto", "plain", "json", "none"]),
            default="auto",
            envvar="EQUIVENGINE_PROGRESS",
            show_envvar=True,
            show_default=True,
            help="Progress on stderr: a bar on a terminal, lines elsewhere, JSON lines, or nothing.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout at the end."),
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def _parsed(ctx: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Any]:
    if not pairs:  # `--help` is not to import what reads them
        return {}
    from equivengine.runtime.config import parse_settings

    return parse_settings(pairs, "--set-executor")


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json alone."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)
