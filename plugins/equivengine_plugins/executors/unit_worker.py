"""What runs in a process of units: load plugins, say so, then carry out batches until nobody asks for more."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

import equivengine as eqv

#: A process that got nothing to do for so many seconds ends: whoever started it may be gone, or at another run.
IDLE_SECONDS = 900.0

#: What crosses to the parent: a word and what belongs to it.
READY, REFUSED, BEGUN, DONE, STOPPED = "ready", "refused", "begun", "done", "stopped"


def main() -> None:
    """Serve the connection whose descriptor is the second argument; `UnitProcess` holds the other end.

    The numbers of signals that are left to it follow.
    """
    descriptor, *ignored = map(int, sys.argv[2:])
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    for number in (signal.SIGINT, *ignored):  # Ctrl-C reaches the parent, which ends us
        signal.signal(number, signal.SIG_IGN)
    os.dup2(2, 1)  # what probes print is not to stand in the parent's document
    messages: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(connection, messages), daemon=True).start()
    code = _serve(connection, messages)
    sys.stderr.flush()
    os._exit(code)  # no library that is busy in a thread keeps the process


def _listen(connection: Connection, messages: queue.Queue[bytes]) -> None:
    """In a thread of its own: a process that has lost its parent ends in the middle of a unit."""
    try:
        while True:
            messages.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(1)


def _serve(connection: Connection, messages: queue.Queue[bytes]) -> int:
    try:
        work: eqv.Work = pickle.loads(messages.get())
        work.check()
    except BaseException as error:
        connection.send((REFUSED, _portable(error)))
        return 1
    connection.send((READY, None))
    while True:
        try:
            method, arguments = pickle.loads(messages.get(timeout=IDLE_SECONDS))
        except queue.Empty:
            return 0
        connection.send((BEGUN, None))
        try:
            answer: tuple[str, Any] = (DONE, getattr(work, method)(*arguments))
        except BaseException as error:
            answer = (STOPPED, _portable(error))
        connection.send(answer)


def _portable(error: BaseException) -> BaseException:
    """The error itself where it survives the way, or one that says what it said."""
    if isinstance(error, eqv.EngineError | KeyboardInterrupt):
        return error.with_traceback(None)
    return eqv.PluginError("a process of units stopped", got=f"{type(error).__name__}: {error}")
