"""Being asked to stop: Ctrl-C, SIGTERM (batch systems, `kill`) and SIGHUP (a closed terminal) all end a run cleanly."""

from __future__ import annotations

import signal
from types import FrameType


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
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def _stop(signal_number: int, frame: FrameType | None) -> None:
    raise Stopped(signal_number)
