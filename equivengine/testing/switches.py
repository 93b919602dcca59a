"""State of the process that a plugin is not to leave changed, as it is and as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

#: Name, how it is read, and how it is put back.
_SWITCHES: tuple[tuple[str, Callable[[], Any], Callable[[Any], object]], ...] = (
    ("default dtype", torch.get_default_dtype, torch.set_default_dtype),
    ("gradients", torch.is_grad_enabled, torch.set_grad_enabled),
    ("deterministic", torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    ("threads", torch.get_num_threads, torch.set_num_threads),
    ("working directory", os.getcwd, os.chdir),
)


def read() -> dict[str, Any]:
    """The switches by name."""
    return {name: get() for name, get, _ in _SWITCHES}


def put_back(before: dict[str, Any]) -> dict[str, Any]:
    """Switch back to what `read` gave; returns those that had been changed, as they were found."""
    found = {name: value for name, value in read().items() if value != before[name]}
    for name, _, put in _SWITCHES:
        if name in found:
            put(before[name])
    return found
