"""Being asked to stop: Ctrl-C, SIGTERM (batch systems, `kill`) and SIGHUP (a closed terminal) all end a run cleanly."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_program = False


class Stopped(KeyboardInterrupt):
    """A signal other than SIGINT; passes through everything that lets Ctrl-C pass."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


def exit_code(stop: KeyboardInterrupt) -> int:
    """128 + the number of the signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + (stop.signal_number if isinstance(stop, Stopped) else signal.SIGINT)


def stop_on_signals() -> None:
    """Raise `Stopped` on SIGTERM and SIGHUP, unless whoever started us (nohup) had them ignored."""
    global _program
    _program = True
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Take no notice of any of them for a moment: what is done within is short, and not to be cut short."""
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread
        yield
        return
    before = {number: signal.getsignal(number) for number in _STOPS}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def leave_at_once() -> None:
    """From here on end the process on the first signal, without a word: all that is to be said has been said.

    Only where `stop_on_signals` has made this process ours.
    """
    if _program:
        for number in _STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _leave)


def _stop(signal_number: int, frame: FrameType | None) -> None:
    raise Stopped(signal_number)


def _leave(signal_number: int, frame: FrameType | None) -> None:
    os._exit(128 + signal_number)
