"""Run console blocks of pages and write what they print into them: `python tools/refresh_readme.py [--slow] [PAGE...]`.

Without a page, README.md. A block takes part if the line above it is `<!-- run -->`, or `<!-- run: slow -->` and
`--slow` is given. Lines that start with `$ ` are commands; their standard output follows them. The blocks of a page run
in one fresh directory, in which `bench` and `recipes` are those of the checkout. For `make TARGET`, the recipe of that
target is run with this interpreter, without setting anything up.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import pages

ROOT = pages.ROOT


def blocks(text: str) -> Iterator[pages.Block]:
    """The console blocks of a page that take part."""
    return (block for block in pages.found(text) if block.language == "console" and block.mark.startswith("run"))


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


def refreshed(text: str, slow: bool) -> str:
    """A page with the output of its blocks as it is printed here."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("bench", "recipes"):
            Path(folder, name).symlink_to(ROOT / name)

        def fresh(match: re.Match[str]) -> str:
            (block,) = pages.found(match[0])
            if block not in blocks(match[0]) or (block.slow and not slow):
                return match[0]
            entered = re.findall(r"^\$ (?:.*\\\n)*.*\n", match["body"], re.MULTILINE)
            shown = (command + run(command[2:].rstrip(), Path(folder)) for command in entered)
            start, end = (place - match.start() for place in match.span("body"))
            return match[0][:start] + "".join(shown) + match[0][end:]

        return pages.BLOCK.sub(fresh, text)


def main() -> None:
    """Refresh pages in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, default=[ROOT / "README.md"], help="pages (default: README.md)")
    parser.add_argument("--slow", action="store_true", help="slow blocks too")
    options = parser.parse_args()
    for page in options.pages:
        page.write_text(refreshed(page.read_text(encoding="utf-8"), options.slow), encoding="utf-8")


if __name__ == "__main__":
    main()
