"""Write ``docs/errors.md`` from the records: ``python tests/errors/write_page.py``."""

from __future__ import annotations

import re
import sys

import error_records
import error_sites
from error_records import Record

PAGE = error_sites.ROOT / "docs" / "errors.md"

HEAD = """# Errors

Every error says what is wrong, what was expected, what came instead, and what to do next:

```console
$ equivengine probe --plugin ldcl
error: no probe is called 'ldcl'
  expected: perhaps 'ldlc'
  next: see `equivengine ls probes`
```

The command line prints it on stderr, without a traceback, and exits with 2 where the command itself must be changed,
with 1 otherwise. Where an error concerns single images, their units fail, the others are measured, and the exit code is
3. In Python each is an `equivengine.EngineError` with the attributes `what`, `expected`, `got` and `hint`.
`EQUIVENGINE_TRACEBACK=1` shows where it was raised.

This page lists them all: what is said, then a command or a call in Python that provokes it, with what to do. Names and
numbers are those of the tests that run these lines; `tests/errors/write_page.py` writes the page from what they print.
"""

#: Headings, in the order of the page, and what is below them.
ROOMS = {
    "cli": ("Command line", "What cannot be understood, before anything is loaded."),
    "runtime": ("Runs and plugins", "Names, parameters, run files, executors, and what a run found when it resumed."),
    "contracts": ("Models, samples and results", "What a plugin hands over, held to its contract."),
    "backends": ("Model addresses and weights", "What follows `--model`."),
    "datasets": ("Image and text sets", "What follows `--images` and `--targets`."),
    "probes": ("Probes", "What a probe cannot measure here."),
    "executors": ("Executors", "What follows `--executor`."),
    "store": ("Run directories and result files", "What cannot be read or written."),
    "report": ("Reports, comparisons, exports", "What cannot be shown."),
    "jacobian": ("Jacobians", "`equivengine.JacobianOperator`."),
    "linalg": ("Singular values and subspaces", "`equivengine.linalg`."),
    "matching": ("Matching and walks", "`equivengine.matching`."),
    "pictures": ("Pictures", "`equivengine.pictures`."),
    "statistics": ("Statistics", "`equivengine.statistics`."),
    "stopping": ("Stopping rules", "`equivengine.stopping`."),
    "ops": ("Compiled extension", "Found when the extension is loaded."),
    "testing": ("Tests of plugins", "`equivengine.testing`."),
}
_LONGEST = 180


def page() -> str:
    """The whole page."""
    rooms: dict[str, list[Record]] = {}
    for site in error_sites.sites():
        record = error_records.records().get(site)
        if record is not None:
            rooms.setdefault(error_records.room(site), []).append(record)
    parts = [HEAD]
    for room, (title, about) in ROOMS.items():
        if room in rooms:
            parts.append(f"## {title}\n\n{about}\n\n" + "\n".join(_entry(record) for record in rooms[room]) + "\n")
    return "\n".join(parts)


def _entry(record: Record) -> str:
    """An error on two lines."""
    said = _parts(record.text)
    head = f"- {_plain(said['what'])}"
    if said.get("got"):
        head += f" (got: {_plain(said['got'])})"
    todo = _plain(said.get("next") or (f"expected: {said['expected']}" if said.get("expected") else ""))
    cause = _code(record.command or record.call)
    return f"{head}\\\n  {cause}" + (f" → {todo}" if todo else "")


def _parts(text: str) -> dict[str, str]:
    """What, expected, got and next of an error."""
    found = {"what": ""}
    key = "what"
    for line in text.split("\n"):
        if match := re.match(r"  (expected|got|next): (.*)", line):
            key, line = match.groups()
            found[key] = ""
        found[key] = f"{found[key]} {line.strip()}".strip()
    return found


def _plain(text: str) -> str:
    """A text without what markdown would take for its own, and not too long."""
    text = _short(text.replace("TMP/", ""))
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([\\*_<>\[\]|#`])", r"\\\1", p) for p in pieces)


def _code(text: str) -> str:
    text = _short(text.replace("TMP/", ""))
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4].rstrip() + " ..."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
