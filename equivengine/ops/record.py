"""Which implementation ran: one note for every dispatch of an operation, collected while a recording is open.

The engine stores `Recording.paths()` as provenance, so that a result says whether a compiled kernel or a reference
produced it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Recording:
    """Counts, for every operation, how often each implementation ran.

    The implementations ("paths") are "cpu-avx512", "cpu-avx2", "cpu-base" and "cuda" (compiled kernels), "reference"
    (this package's plain PyTorch formula) and "torch" (the operation was left to PyTorch altogether).

    A recording takes notes from several threads, and none once its `recording()` block has ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, dict[str, int]] = {}
        self._open = True

    def paths(self) -> dict[str, dict[str, int]]:
        """Return a copy of the counts: operation name -> path -> number of calls."""
        with self._lock:
            return {name: dict(calls) for name, calls in sorted(self._calls.items())}

    def _note(self, name: str, path: str) -> None:
        with self._lock:
            if self._open:
                calls = self._calls.setdefault(name, {})
                calls[path] = calls.get(path, 0) + 1

    def _close(self) -> None:
        with self._lock:
            self._open = False


_active: ContextVar[tuple[Recording, ...]] = ContextVar("equivengine_recordings", default=())


@contextmanager
def recording() -> Iterator[Recording]:
    """Collect which implementation every dispatch takes inside the block.

    Blocks nest: an inner dispatch is noted in every open recording. What other threads run is theirs, unless they
    inherit this thread's context (`contextvars.copy_context`), with one exception: a derivative that autograd's own
    threads compute is noted in the recordings that were open when its primal was computed.

    Yields:
        The `Recording`, which stays readable after the block.

    Example:
        >>> with recording() as log:
        ...     embedding = model(x)
        >>> log.paths()
        {'layer_norm_jvp': {'cpu-avx512': 25}}
    """
    log = Recording()
    token = _active.set((*_active.get(), log))
    try:
        yield log
    finally:
        _active.reset(token)
        log._close()


def active() -> tuple[Recording, ...]:
    """Return the recordings open in this context, for work that may later run on one of autograd's threads."""
    return _active.get()


@contextmanager
def also_into(logs: tuple[Recording, ...]) -> Iterator[None]:
    """Note dispatches inside the block into `logs` too.

    Autograd computes backward passes of CUDA tensors on threads of its own, whose context is empty.
    """
    current = _active.get()
    token = _active.set((*current, *(log for log in logs if log not in current)))
    try:
        yield
    finally:
        _active.reset(token)


def note(name: str, path: str) -> None:
    """Count one dispatch of operation `name` by `path` in every open recording."""
    for log in _active.get():
        log._note(name, path)
