"""Ctrl-C at awkward moments: while run.h5 is written, twice in a row, with a bar on a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from equivengine import open_run
from equivengine.cli import signals
from equivengine.store import consolidate, files

SLOW = ("probe", "--plugin", "measure", "--model", "toy", "--images", "noise:9?size=8&mode=L", "--set", "seconds=0.2")


def temporary(run):
    return list(run.rglob("tmp.*"))


@pytest.fixture
def run(measure, photos, tmp_path):
    """Two units published, one failed: so there is something to resume, and run.h5 is written again."""
    (photos / "b.png").write_bytes(b"")
    measure(code=3)
    return tmp_path / "run"


def test_an_interruption_of_consolidation_keeps_the_former_file(run, cli, monkeypatch):
    before = (run / "run.h5").read_bytes()
    write = consolidate.write_run_file

    def interrupted(path, *arguments, **options):
        write(path, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(consolidate, "write_run_file", interrupted)
    said = cli("resume", run, code=130)
    assert f"equivengine resume {run}" in said.err
    assert (run / "run.h5").read_bytes() == before
    assert not temporary(run)
    monkeypatch.undo()
    with open_run(run / "run.h5") as opened:
        assert len(opened.published) == 2


def test_an_interruption_within_hdf5_keeps_the_former_file(run, cli, monkeypatch):
    """In the midst of a write: HDF5 must not see the exception, and the program must."""
    before = (run / "run.h5").read_bytes()
    calls = []
    original = files._write_all

    def interrupted(file, data):
        calls.append(len(data))
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(file, data)

    monkeypatch.setattr(files, "_write_all", interrupted)
    said = cli("resume", run, code=130)
    assert len(calls) >= 3
    assert f"equivengine resume {run}" in said.err
    assert (run / "run.h5").read_bytes() == before
    assert not temporary(run)


@pytest.mark.parametrize("pause", [0.0, 0.01])
def test_a_second_interruption_does_not_hide_how_to_go_on(toys, start, cli, tmp_path, pause):
    run = tmp_path / "run"
    process = start(*SLOW, "--out", run, "--progress", "json")
    while '"published", "seconds"' not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    time.sleep(pause)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert f"equivengine resume {run}" in err
    with open_run(run) as opened:
        assert opened.published
        assert not opened.failures


def test_a_bar_leaves_the_terminal_as_it_was(toys, tmp_path):
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "equivengine", *SLOW, "--out", str(tmp_path / "run")],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
    )
    os.close(terminal)
    said, sent = b"", 0
    while True:
        try:
            block = os.read(controller, 4096)
        except OSError:  # how a pty says that the other end is gone
            break
        if not block:
            break
        said += block
        if b"2/9" in said and not sent:
            process.send_signal(signal.SIGINT)
            sent = len(said)
    os.close(controller)
    assert process.wait(timeout=30) == 130, said
    assert sent
    assert b"equivengine resume" in said[sent:]
    text = said.decode()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again
    assert text.rindex("resume") > text.rindex("\x1b[?25h")  # and nothing was drawn after the advice
    assert "Traceback" not in text


def test_signals_are_held_and_given_back():
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append("kept"))
    try:
        with signals.held():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        assert calls == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert calls == ["kept"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_program_that_has_said_all_ends_at_once(tmp_path):
    code = """
import os, signal, time
from equivengine.cli import signals
signals.leave_at_once()  # not ours yet: nothing changes
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
signals.stop_on_signals()
signals.leave_at_once()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
finally:
    print("must not be reached")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
