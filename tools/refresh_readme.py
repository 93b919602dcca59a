"""Run the README's console blocks and write what they print into them: `python tools/refresh_readme.py [--slow]`.

A block takes part if the line above it is `<!-- run -->`, or `<!-- run: slow -->` and `--slow` is given. Lines that
start with `$ ` are commands; their standard output follows them. Blocks run in a fresh directory. For `make TARGET`,
the recipe of that target is run with this interpreter, without setting anything up.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- run(?P<slow>: slow)? -->\n```console\n)(?P<body>.*?)(?=^```$)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A console block: its commands in order, each with the output shown, and whether it is slow."""

    commands: list[tuple[str, str]]
    slow: bool


def blocks(text: str) -> Iterator[Block]:
    """The console blocks of a page that take part."""
    for match in BLOCK.finditer(text):
        parts = re.split(r"^\$ (.*)\n", match["body"], flags=re.MULTILINE)
        yield Block(list(zip(parts[1::2], parts[2::2], strict=True)), match["slow"] is not None)


def recipe(target: str) -> str:
    """The command behind a target of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(target)}:.*\n\t@?(.*)\n(?!\t)", text, re.MULTILINE)
    if found is None:
        sys.exit(f"the Makefile has no target {target!r} with a recipe of one line")
    return found[1].replace("$(EQUIVENGINE)", "equivengine")


def run(command: str, directory: Path) -> str:
    """Run a command with this interpreter's programs first on PATH; returns its standard output.

    Raises:
        RuntimeError: It failed; the message holds what it printed.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", recipe(command[5:]) if command.startswith("make ") else command],
        cwd=directory,
        env={**os.environ, "PATH": path, "COLUMNS": "110", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command!r} exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())


def main() -> None:
    """Refresh the README in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slow", action="store_true", help="slow blocks too")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:

        def fresh(match: re.Match[str]) -> str:
            if match["slow"] and not options.slow:
                return match[0]
            commands = re.findall(r"^\$ (.*)$", match["body"], re.MULTILINE)
            return match[1] + "".join(f"$ {command}\n{run(command, Path(folder))}" for command in commands)

        README.write_text(BLOCK.sub(fresh, README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
