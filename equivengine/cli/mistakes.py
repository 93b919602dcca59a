"""What click says of a command line that it cannot read, in the form of all other errors."""

from __future__ import annotations

import re

import click

from equivengine.contracts.wording import suggest
from equivengine.errors import UsageError


def understood(error: click.ClickException) -> UsageError:
    """The same mistake, with what was expected and the next step."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "equivengine"
    hint = f"see `{path} --help`"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return _missing(error.param, path, hint)
    if isinstance(error, click.NoSuchOption):
        known = [name for name in error.possibilities or () if name.startswith("-")]
        expected = f"perhaps {' or '.join(known)}" if known else None
        return UsageError(f"there is no option {error.option_name}", expected=expected, hint=hint)
    name = getattr(error, "command_name", None)  # NoSuchCommand, which click 8.1 does not have
    if name is not None and context is not None and isinstance(context.command, click.Group):
        return unknown_command(str(name), context.command.list_commands(context), path)
    message = error.message.strip().rstrip(".")
    if isinstance(error, click.BadParameter) and error.param is not None:
        given = re.match(r"'(.*?)' is not one of ", message)
        if given and isinstance(error.param.type, click.Choice):
            expected = ", ".join(map(str, error.param.type.choices))
            return UsageError(f"{_named(error.param)} cannot be {given[1]!r}", expected=expected, hint=hint)
        return UsageError(f"{_named(error.param)}: {message}", hint=hint)
    if extra := re.fullmatch(r"Got unexpected extra arguments? \((.*)\)", message):
        hint = f"quote a name that holds spaces; {hint}"
        return UsageError("there are more arguments than the command takes", got=extra[1], hint=hint)
    return UsageError(message[:1].lower() + message[1:], hint=hint)


def unknown_command(name: str, known: list[str], path: str) -> UsageError:
    """No command has this name; options that people type as commands are suggested too."""
    expected = suggest(name, [*known, "--help", "--version"])
    return UsageError(f"no command is called {name!r}", expected=expected, hint=f"see `{path} --help`")


def _missing(parameter: click.Parameter, path: str, hint: str) -> UsageError:
    expected: str | None = None
    if isinstance(parameter.type, click.Choice):
        expected = ", ".join(map(str, parameter.type.choices))
    elif isinstance(parameter, click.Option) and parameter.help:
        expected = parameter.help[0].lower() + parameter.help[1:].rstrip(".")
    if isinstance(parameter, click.Option):  # `equivengine probe ldlc` is what many type first
        hint = f"{path} {_named(parameter)} {parameter.metavar or 'VALUE'}; {hint}"
    kind = "option" if isinstance(parameter, click.Option) else "argument"
    return UsageError(f"the {kind} {_named(parameter)} is missing", expected=expected, hint=hint)


def _named(parameter: click.Parameter) -> str:
    """Its name as one types it."""
    if isinstance(parameter, click.Option):
        return parameter.opts[0]
    return str(getattr(parameter, "metavar", None) or parameter.name).upper()
