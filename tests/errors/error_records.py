"""What is known of each error: the test, the command or call that provokes it, and the words that it prints."""

from __future__ import annotations

import functools
import json
import re
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import error_sites

FOLDER = Path(__file__).with_name("records")
#: Places that no test of this process can see, with the reason and, where there is one, the test of another process.
ELSEWHERE = FOLDER.with_name("elsewhere.json")


@dataclass(frozen=True)
class Record:
    """One error.

    Attributes:
        site: Name of the place in the sources, see `error_sites`.
        test: Node id of the test that provokes it.
        command: The command line; empty where the test calls Python.
        call: Empty where there is a command line; else the address of a model or image set that was opened, after the
            option that it is given by; else the call in the test.
        text: All that the error says.
    """

    site: str
    test: str
    command: str
    call: str
    text: str

    def comparable(self) -> tuple[str, str, str]:
        """What must be the same each time: the cause, and the words without what differs between machines."""
        text = self.text
        if error_sites.sites()[self.site].foreign:
            text = re.sub(r"(?<=\n)  got: .*?(?=\n  next: |\Z)", "  got: ...", text, flags=re.DOTALL)
        return (self.command, self.call, _without_measures(text))


def hide_places(text: str, temporary: str) -> str:
    """A text without the names of temporary folders, of the checkout and of the home directory, and without ports.

    Args:
        text: The text.
        temporary: The folder within which the tests of a session have one each.
    """
    text = re.sub(re.escape(temporary) + r"/[^/\s'\"`,;:]+", "TMP", text)
    text = re.sub(re.escape(tempfile.gettempdir()) + r"/tmp\w+", "TMP", text)
    text = text.replace(str(error_sites.ROOT), "CHECKOUT")
    text = re.sub(rf"(?<=worker on ){re.escape(socket.gethostname())}\b", "HOST", text)
    text = re.sub(r"(?<=//127\.0\.0\.1:)\d{4,5}\b", "PORT", text)  # one that was free at the time
    return text.replace(str(Path.home()) + "/", "HOME/")


def _without_measures(text: str) -> str:
    """A text without numbers, digests, and the words of other libraries, which change with their versions."""
    text = re.sub(r"\b(\w+\.)*\w*(Error|Exception|Warning|Exit)\b: [^\n]*", "ERROR", text)
    text = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,}\b", "0", text)
    return re.sub(r"-?\d[\d,._]*(e[+-]?\d+)?", "0", text)


@functools.cache
def records() -> dict[str, Record]:
    """All records, by site."""
    found: dict[str, Record] = {}
    for path in sorted(FOLDER.glob("*.json")):
        for entry in json.loads(path.read_text(encoding="utf-8")):
            record = Record(**{**entry, "text": "\n".join(entry["text"])})
            assert record.site not in found, f"two records of {record.site}"
            found[record.site] = record
    return found


def by_test() -> dict[str, list[Record]]:
    """All records, by the test that provokes them."""
    found: dict[str, list[Record]] = {}
    for record in records().values():
        found.setdefault(record.test, []).append(record)
    return found


def elsewhere() -> dict[str, str]:
    """Reasons, by site."""
    return dict(json.loads(ELSEWHERE.read_text(encoding="utf-8")))


def room(site: str) -> str:
    """The file that a record belongs to: the room of the module."""
    return site.partition(":")[0].split(".")[1]


def write(found: dict[str, Record]) -> None:
    """Write all records, one file for each room, in the order of the sources."""
    rooms: dict[str, list[dict[str, object]]] = {}
    for site in error_sites.sites():
        if site in found:
            entry = {**asdict(found[site]), "text": found[site].text.split("\n")}
            rooms.setdefault(room(site), []).append(entry)
    for path in FOLDER.glob("*.json"):
        if path.stem not in rooms:
            path.unlink()
    for name, entries in rooms.items():
        text = json.dumps(entries, indent=1, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
