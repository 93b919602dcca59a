"""Entry point of the ``equivengine`` command. Nothing heavier than click is imported before a command is chosen."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import sys
import traceback
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TextIO

import click

import equivengine
from equivengine.cli import mistakes, signals
from equivengine.cli.text import printable
from equivengine.errors import EngineError, PluginError, UsageError

COMMANDS = "equivengine.commands"
TRACEBACK = "EQUIVENGINE_TRACEBACK"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

HELP = """Which inputs does an encoder treat as the same, and which near-identical inputs as different?

\b
Try first:
  equivengine probe --plugin ldlc
Then:
  equivengine probe --plugin spectrum --model timm:vit_base_patch16_224 --images folder:photos
What there is to choose from:
  equivengine ls probes
  equivengine ls models
  equivengine ls datasets
"""
EXIT_CODES = """\b
Exit codes: 0 done, 1 failed, 2 usage, 3 some units failed,
130 interrupted and resumable (143 after SIGTERM, 129 after SIGHUP).
"""


class _ReaderGone(Exception):
    """A BrokenPipeError, under a name at which click does not exit."""


class Commands(click.Group):
    """Finds commands in the entry-point group `equivengine.commands` and imports one when it is called."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all installed commands."""
        return sorted({entry.name for entry in entry_points(group=COMMANDS)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command.

        Raises:
            PluginError: If two distributions claim it, or it cannot be imported.
        """
        found = [entry for entry in entry_points(group=COMMANDS) if entry.name == cmd_name]
        if not found:
            return None
        if len(found) > 1:
            raise PluginError(
                f"the command {cmd_name!r} is claimed by {len(found)} packages",
                got="; ".join(_owner(e) for e in found),
                hint="uninstall one of them",
            )
        try:
            command = found[0].load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise PluginError(
                f"the command {cmd_name!r} cannot be loaded",
                got=f"{_owner(found[0])}: {type(error).__name__}: {error}",
                hint=f"reinstall {_distribution(found[0])}, or uninstall it",
            ) from error
        if not isinstance(command, click.Command):
            raise PluginError(
                f"the command {cmd_name!r} is not a click command",
                got=f"{_owner(found[0])}: {command!r}",
                hint=f"report it to the authors of {_distribution(found[0])}",
            )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name close matches for an unknown command."""
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            raise mistakes.unknown_command(name, self.list_commands(ctx), ctx.command_path)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands; those of other packages by their owner, since describing them would import them."""
        rows = []
        for entry in sorted(entry_points(group=COMMANDS), key=lambda e: e.name):
            if entry.module.startswith("equivengine."):
                command = entry.load()
                rows.append((entry.name, command.get_short_help_str(limit=90)))
            else:
                rows.append((entry.name, f"from {_owner(entry)}"))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=HELP,
    epilog=EXIT_CODES,
)
@click.version_option(equivengine.__version__, "--version", prog_name="equivengine")
@click.option("-v", "--verbose", count=True, help="More log messages; twice for debugging.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
@click.option("--no-plugin", "blocked", multiple=True, metavar="NAME", help="Leave out a plugin; repeatable.")
@click.pass_context
def cli(ctx: click.Context, verbose: int, quiet: bool, blocked: tuple[str, ...]) -> None:
    """Set up logging, and remember what all commands need."""
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if not verbose:  # that it can keep no list of fonts, where HOME cannot be written: it draws all the same
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
    ctx.obj = {"blocked": blocked, "quiet": quiet}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code (0, 1, 2, 3, or 128 + the number of the signal that stopped it)."""
    signals.stop_on_signals()
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character shows its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = run(arguments)
    for stream in (sys.stdout, sys.stderr):
        _settle(stream)
    if code > 128:  # stopped: a second signal, while the interpreter takes itself apart, is not to change the code
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    No error shows a traceback, unless EQUIVENGINE_TRACEBACK=1 in the environment asks for it (plugin authors may).
    """
    try:
        code = cli.main(args=arguments, prog_name="equivengine", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except (click.Abort, KeyboardInterrupt) as stop:  # click makes the first of the second
        signals.leave_at_once()
        _complain("interrupted")
        cause = stop if isinstance(stop, KeyboardInterrupt) else stop.__cause__
        return signals.exit_code(cause if isinstance(cause, KeyboardInterrupt) else KeyboardInterrupt())
    except (_ReaderGone, BrokenPipeError):
        _settle(sys.stdout)  # as after `| head`: nothing to say, and nowhere to say it
        return 0
    except SystemExit as done:  # shell completion; a command of another package
        if isinstance(done.code, str):
            _complain(done.code)
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except click.ClickException as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            error.show(sys.stderr)
        else:
            _complain(str(mistakes.understood(error)))
        return UsageError.exit_code
    except BaseException as error:
        if os.environ.get(TRACEBACK):
            raise
        if isinstance(error, OSError) and error.errno in _NO_ROOM:  # of a file that it writes the engine says it itself
            _settle(sys.stdout)
            error = EngineError(
                "what was to be printed cannot be written",
                expected="room where standard output goes",
                got=error.strerror,
                hint="make room there, and repeat the command: what a run has published stays",
            )
        if isinstance(error, EngineError):
            _complain(str(error))
            return error.exit_code
        _complain(str(_unexpected(error)))
        return EngineError.exit_code


def _open_what_is_closed() -> None:
    """Give standard streams that were closed (``>&-``) an end; else the next file to be opened takes their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for as long as the process lives


def _settle(stream: TextIO) -> None:
    """Let go of what a reader that has gone did not take; else the interpreter stumbles over it and exits with 120."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _unexpected(error: BaseException) -> EngineError:
    """What nobody foresaw, in one block; where it was raised says whose it is."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (in {frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return EngineError(
        "something unexpected went wrong, in equivengine or in a plugin",
        got=f"{type(error).__name__}: {error}{place}",
        hint=f"{TRACEBACK}=1 shows where; please report it with `equivengine doctor --json`",
    )


def _complain(text: str) -> None:
    head = click.style("error:", fg="red", bold=True) if _colour() else "error:"
    with contextlib.suppress(BrokenPipeError):
        click.echo(f"{head} {printable(text)}", err=True)


def _colour() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _owner(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
