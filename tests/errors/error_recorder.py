"""A pytest plugin that notes which errors are made while a test runs, and what made them.

`records` names a test for each place in the sources where an error is made. When that test has passed, the recorder
holds what it saw against the record: the same command or call must have led to the same words. With
``--record-errors FILE`` it writes down all that it sees, for ``tests/errors/write_records.py``.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import linecache
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import error_records
import error_sites
import pytest

TESTS = str(error_sites.ROOT / "tests")
UPDATE = "if that is meant, run `python tests/errors/write_records.py TESTS...`"


class ErrorRecorder:
    """Notes errors, test by test.

    Args:
        declared: Records by the node id of the test that provokes them.
        log: File to which everything is written, or None.
    """

    def __init__(self, declared: dict[str, list[error_records.Record]], log: Path | None) -> None:
        self.declared = declared
        self.log = log
        self.temporary = ""
        self.missing: list[str] = []
        self.by_error: dict[int, int] = {}
        self.kept: list[BaseException] = []  # while they live, no other object has their id
        self.seen: list[error_records.Record] | None = None
        self.test = ""

    def watch(self) -> None:
        """From here on, see each error that is made."""
        from equivengine.errors import EngineError
        from equivengine.store.refusal import Refused

        for cls in (EngineError, Refused):
            self._wrap(cls)

    def _wrap(self, cls: type[Any]) -> None:
        made = cls.__init__

        @functools.wraps(made)
        def init(error: Any, *arguments: object, **named: object) -> None:
            made(error, *arguments, **named)
            if self.seen is not None:
                self._note(error, sys._getframe(1))

        cls.__init__ = init

    def _note(self, error: Exception, frame: FrameType | None) -> None:
        while frame is not None and frame.f_locals.get("self", frame.f_locals.get("error")) is error:
            frame = frame.f_back  # the constructor of a derived class
        if frame is None:
            return
        site = error_sites.by_place().get(frame.f_code.co_filename, {}).get(_position(frame))
        if site is None:
            return
        text = str(error)
        if (expected := getattr(error, "expected", None)) is not None and "\n" not in text and site.error == "Refused":
            text += f"\n  expected: {expected}"
        command, call = _cause(frame)
        command, call, text = (error_records.hide_places(words, self.temporary) for words in (command, call, text))
        assert self.seen is not None
        self._complete(sys.exception(), text)
        self.by_error[id(error)] = len(self.seen)
        self.kept.append(error)
        self.seen.append(error_records.Record(site.name, self.test, command, call, text))

    def _complete(self, inner: BaseException | None, text: str) -> None:
        """Where an error is made of another one, that one is printed as this one: with the file, or what to do next."""
        assert self.seen is not None
        while inner is not None:
            place = self.by_error.get(id(inner))
            if place is not None and _first_line(self.seen[place].text) in text:
                self.seen[place] = dataclasses.replace(self.seen[place], text=text)
            inner = inner.__cause__ or inner.__context__

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Iterator[None]:
        """Run a test; once it has passed, hold its records against what was seen."""
        expected = self.declared.get(pyfuncitem.nodeid, [])
        if not expected and self.log is None:
            return (yield)
        self.seen, self.test = [], pyfuncitem.nodeid
        self.by_error, self.kept = {}, []
        # pytest has no public name for this folder outside of fixtures.
        self.temporary = str(pyfuncitem.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
        try:
            result = yield
            for record in expected:
                _check(record, self.seen)
            return result
        finally:
            if self.log is not None:
                ran = error_records.Record("", self.test, "", "", "")
                with self.log.open("a", encoding="utf-8") as file:
                    for record in [ran, *self.seen]:
                        file.write(json.dumps([record.site, record.test, record.command, record.call, record.text]))
                        file.write("\n")
            self.seen, self.kept = None, []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Miss no test that a record names: of a file that was collected as a whole, all of them must be there."""
        parts = {argument.partition("::")[0] for argument in config.args if "::" in argument}
        found = {item.nodeid for item in items}
        files = {node.partition("::")[0] for node in found} - parts
        for node, records in self.declared.items():
            if node.partition("::")[0] in files and node not in found:
                self.missing.append(f"{node}, for {records[0].site}")
        if (output := getattr(config, "workeroutput", None)) is not None:  # a process of pytest-xdist
            output["records_of_no_test"] = self.missing

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Collect what processes of pytest-xdist have missed: each of them collects all tests."""
        missing = getattr(node, "workeroutput", {}).get("records_of_no_test", [])
        self.missing += [line for line in missing if line not in self.missing]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail where a record names a test that is not there; the other tests have run all the same."""
        if self.missing and self.log is None and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name these tests."""
        if self.missing and self.log is None:
            terminalreporter.section("tests/errors/records name tests that are not there")
            for line in self.missing:
                terminalreporter.line(line)
            terminalreporter.line(UPDATE)


def _check(record: error_records.Record, seen: list[error_records.Record]) -> None:
    here = [made for made in seen if made.site == record.site]
    assert here, f"tests/errors/records say that this test provokes {record.site!r}; it does not; {UPDATE}"
    wanted = record.comparable()
    found = [made.comparable() for made in here]
    assert wanted in found, f"{record.site!r}: recorded {wanted}, found {found[:3]}; {UPDATE}"


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _position(frame: FrameType) -> error_sites.Span | None:
    """Where the call is that a frame is at."""
    return _positions(frame.f_code)[frame.f_lasti // 2]


@functools.cache
def _positions(code: CodeType) -> list[error_sites.Span | None]:
    return [
        (line, column, last, end) if None not in (line, column, last, end) else None  # type: ignore[misc]
        for line, last, column, end in code.co_positions()
    ]


def _cause(frame: FrameType | None, *, from_main: bool = False) -> tuple[str, str]:
    """The command line within which an error was made, and the call in the test that led to it.

    Args:
        frame: Where the error was made, or where the main thread is meanwhile.
        from_main: Whether it is the latter.
    """
    command = call = address = ""
    while frame is not None:
        code = frame.f_code
        address = address or _address(frame)
        if code.co_name == "run" and code.co_filename.endswith("equivengine/cli/main.py"):
            command = "equivengine " + shlex.join(frame.f_locals["arguments"] or [])
        if not call and code.co_filename.startswith(TESTS) and not code.co_filename.startswith(f"{TESTS}/toys"):
            call = _source(frame)
        frame = frame.f_back
    if not command and not from_main and threading.current_thread() is not threading.main_thread():
        # what is published beside the next batch belongs to the command that the main thread is in
        command, _ = _cause(sys._current_frames().get(threading.main_thread().ident or 0), from_main=True)
    return command, "" if command else address or call


def _address(frame: FrameType) -> str:
    """The address that a frame of a backend or an image set is at work on, after the option that one gives it by."""
    room = frame.f_globals.get("__name__", "").split(".")[:2]
    option = {"backends": "--model", "datasets": "--images"}.get(room[-1])
    if option is None or room[0] != "equivengine_plugins":
        return ""
    owners = [frame.f_locals.get(name) for name in ("self", "checkpoint")]
    found = [frame.f_locals.get("uri"), *(getattr(owner, "uri", getattr(owner, "_uri", None)) for owner in owners)]
    texts = [str(uri.text) for uri in found if type(uri).__name__ == "URI"]
    return f"{option} {shlex.quote(texts[0])}" if texts else ""


def _source(frame: FrameType) -> str:
    """What a test says at the place that a frame is at."""
    position = _position(frame)
    if position is None:
        return ""
    line, column, last, end = position
    lines = [linecache.getline(frame.f_code.co_filename, number) for number in range(line, last + 1)]
    lines[-1] = lines[-1].encode()[:end].decode()
    lines[0] = lines[0].encode()[column:].decode()
    text = " ".join("".join(lines).split())
    try:
        return ast.unparse(ast.parse(text))
    except SyntaxError:
        return text


def start(config: pytest.Config) -> None:
    """Register a recorder."""
    given = config.getoption("--record-errors")
    recorder = ErrorRecorder(error_records.by_test(), Path(given) if given else None)
    recorder.watch()
    config.pluginmanager.register(recorder, "error-recorder")
