"""Switches the network off around a piece of code, and notes who reached for it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Functions of torch.hub that download what no cache holds.
_HUB = ("load", "load_state_dict_from_url", "download_url_to_file")


class NetworkOff(OSError):
    """Raised where something reaches for the network while it is switched off."""


_notes: list[list[str]] = []
_hooked = False


@contextlib.contextmanager
def offline() -> Iterator[list[str]]:
    """Refuse connections to other machines, whatever library asks for them; yields a list that fills with who asked.

    Calls into torch.hub are noted and go ahead: on this machine its cache may hold what another one would download.
    """
    global _hooked
    if not _hooked:  # an audit hook cannot be taken away again; outside of this context it does nothing
        sys.addaudithook(_refuse)
        _hooked = True
    noted: list[str] = []
    _notes.append(noted)
    try:
        with _hub_noted(noted):
            yield noted
    finally:
        _notes.remove(noted)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _notes:
        return
    if event == "socket.getaddrinfo":
        place = f"{arguments[0]}:{arguments[1]}"
    elif event == "socket.connect" and isinstance(arguments[1], tuple):  # names of local sockets are text or bytes
        place = f"{arguments[1][0]}:{arguments[1][1]}"
    else:
        return
    if place.rpartition(":")[0].strip("[]") in ("localhost", "127.0.0.1", "::1", "None"):
        return
    _notes[-1].append(f"{place} ({_caller()})")
    raise NetworkOff(f"the network is switched off while a plugin is checked; {place} was asked for")


@contextlib.contextmanager
def _hub_noted(noted: list[str]) -> Iterator[None]:
    hub = sys.modules.get("torch.hub")
    if hub is None:
        yield
        return
    kept = {name: getattr(hub, name) for name in _HUB}

    def noting(name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            noted.append(f"torch.hub.{name}({', '.join(map(repr, arguments[:2]))}) ({_caller()})")
            return kept[name](*arguments, **options)

        return call

    for name in _HUB:
        setattr(hub, name, noting(name))
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(hub, name, function)


def _caller() -> str:
    """The innermost place outside of installed libraries; of all places if there is none."""
    frame = sys._getframe(1)
    inner = None
    while frame is not None:
        file = frame.f_code.co_filename
        known = "site-packages" in file or file.startswith(("<", sys.prefix, sys.base_prefix)) or file == __file__
        if not known:
            return f"{Path(file).name}, line {frame.f_lineno}"
        if inner is None and file != __file__:
            inner = f"{Path(file).name}, line {frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return inner or "unknown place"
