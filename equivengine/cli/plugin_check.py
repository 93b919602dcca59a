"""Runs the checks of a plugin in a process of its own, with a time limit, and starts another one where it is lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Any

from equivengine.cli.plugin_worker import Request
from equivengine.testing.verdict import Verdict, failure

#: How often a new process takes over from one that was lost.
RESTARTS = 5

#: Where a process that is lost would be lost again: nothing more can be said of the plugin, or of one section.
_WHOLE = ("plugin_loads", "names_are_free")
_SECTION = ("ready", "loads", "opens", "returns_a_result")

#: Seconds that a hanging process gets to say where it hangs.
_LAST_WORDS = 2.0


@dataclass
class Section:
    """The verdicts on one thing that a plugin provides.

    Attributes:
        key: ``"plugin"``, or kind and name: ``"backends/lenet"``.
        title: For people.
        verdicts: In order.
    """

    key: str
    title: str
    verdicts: list[Verdict] = field(default_factory=list)


@dataclass
class _Lost:
    """How a process ended without finishing."""

    event: dict[str, Any]  # what it was at
    how: str
    where: str
    expected: str
    hint: str


def check_plugin(request: Request, *, limit: float, on_verdict: Callable[[Section, Verdict], None]) -> list[Section]:
    """Check an installed plugin.

    Args:
        request: What to check.
        limit: Seconds that one requirement may take, the start of the process included.
        on_verdict: Called after each requirement.

    Returns:
        One section for the plugin and one for each class that it provides.
    """
    sections: dict[str, Section] = {}

    def note(event: dict[str, Any], verdict: Verdict) -> None:
        section = sections.setdefault(event["section"], Section(event["section"], event["title"]))
        section.title = event["title"]
        section.verdicts.append(verdict)
        on_verdict(section, verdict)

    for _ in range(RESTARTS + 1):
        lost = None
        for event in _events(request, limit):
            if isinstance(event, _Lost):
                lost = event
            elif event["event"] == "verdict":
                verdict = Verdict(**event["verdict"])
                note(event, verdict)
                request = replace(request, done=(*request.done, f"{event['section']}/{verdict.name}"))
        if lost is None:
            break
        name = lost.event["name"] or "ready"
        problem = failure(f"the process was lost: {lost.how}", lost.expected, lost.where, lost.hint)
        note(lost.event, Verdict(name, lost.event["sentence"], **problem))
        if name in _WHOLE:
            break
        passed_over = "*" if name in _SECTION else name
        request = replace(request, done=(*request.done, f"{lost.event['section']}/{passed_over}"))
    return list(sections.values())


def _events(request: Request, limit: float) -> Iterator[dict[str, Any] | _Lost]:
    """What a fresh process reports; the last item says how it was lost, unless it finished."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as said, open(reading, encoding="utf-8") as events:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "equivengine.cli.plugin_worker", str(writing), request.to_json()],
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # children of the plugin end with it
            )
        finally:
            os.close(writing)
        try:
            yield from _followed(process, events, said, limit)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _followed(
    process: subprocess.Popen[bytes], events: IO[str], said: IO[bytes], limit: float
) -> Iterator[dict[str, Any] | _Lost]:
    current: dict[str, Any] = {
        "section": "plugin",
        "title": "plugin",
        "name": "plugin_loads",
        "sentence": "the plugin loads",
    }
    waiting = ""
    deadline = time.monotonic() + limit
    while True:
        if not select.select([events], [], [], max(0.0, deadline - time.monotonic()))[0]:
            process.send_signal(signal.SIGABRT)  # faulthandler says where it is
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_WORDS)
            expected = f"an end within {limit:g} s (--timeout)"
            yield _Lost(
                current,
                f"it did not finish within {limit:g} s",
                _place(said),
                expected,
                "look for an endless loop, a lock or a wait for input there",
            )
            return
        piece = os.read(events.fileno(), 1 << 16).decode("utf-8", "replace")
        if not piece:
            code = process.wait()
            how = f"it exited with code {code}" if code >= 0 else f"it was ended by {_signal(-code)}"
            hint = (
                "nothing in a plugin may end the process: raise an exception"
                if code >= 0
                else ("look at compiled code that is called there, and at memory")
            )
            yield _Lost(current, how, _place(said), "an end with a verdict", hint)
            return
        waiting += piece
        *lines, waiting = waiting.split("\n")
        for line in lines:
            event = json.loads(line)
            if event["event"] == "end":
                return
            if event["event"] == "begin":
                current = event
            deadline = time.monotonic() + limit
            yield event


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _place(said: IO[bytes]) -> str:
    """Where it happened, from what faulthandler or the interpreter printed; else the last line that was printed."""
    said.seek(0)
    text = said.read().decode("utf-8", "replace")
    frames = re.findall(r'File "(.+?)", line (\d+),? in (\S+)', text)
    own = [frame for frame in frames if not re.search(r"site-packages|/equivengine/|lib/python|<frozen", frame[0])]
    if own:
        return "{}, line {}, in {}".format(*own[0])
    last = [line for line in text.splitlines() if line.strip()]
    return last[-1].strip() if last else "it said nothing"
