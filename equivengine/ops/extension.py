"""Finds, checks and loads the compiled extension `equivengine._C`.

The dynamic loader accepts an extension that was built for another torch release: it resolves the symbols and computes
with the wrong layouts. So the build facts stand as a marker string inside the file and are read, and compared with the
running torch, before it is loaded.

`EQUIVENGINE_EXTENSION` chooses: `auto` (the default: load it where it is present), `off` (plain PyTorch throughout) or
`require` (an error where it is missing). An extension that does not fit is an error under `auto` too.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import json
import mmap
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from equivengine.errors import ExtensionError, UsageError

MODES = ("auto", "off", "require")
REBUILD = "rebuild it against the running torch: `make setup`, or `pip install --no-build-isolation .`"

_MARKER = b"EQUIVENGINE_BUILD_FACTS="
_PACKAGE = Path(__file__).resolve().parent.parent
_lock = threading.Lock()
_module: ModuleType | None = None


@dataclass(frozen=True)
class ExtensionStatus:
    """What is known about the compiled extension.

    Attributes:
        available: A file that fits the running torch is present, and `EQUIVENGINE_EXTENSION` does not turn it off.
        loaded: Its kernels are registered in this process.
        reason: One sentence: why it is used, or why not and what to do.
        path: The file, where there is one.
        facts: Build facts: "torch", "torch_cuda" (the CUDA release of that torch, or None), "cuda" (the toolkit that
            compiled the CUDA kernels, or None), "cuda_arch", "isa" (the CPU variants compiled), "kernel_dtypes",
            "compiler", "threads" of the CPU kernels ("openmp", or "none": one thread); and, once loaded, "isa_chosen"
            (the variant that runs on this processor).
    """

    available: bool
    loaded: bool
    reason: str
    path: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def mode() -> str:
    """Return what `EQUIVENGINE_EXTENSION` asks for: "auto", "off" or "require".

    Raises:
        UsageError: It holds anything else.
    """
    value = os.environ.get("EQUIVENGINE_EXTENSION", "auto")
    if value not in MODES:
        raise UsageError(
            "the environment variable EQUIVENGINE_EXTENSION is not understood",
            expected=" | ".join(MODES),
            got=repr(value),
            hint="unset it, or set it to one of these",
        )
    return value


def find(package: Path = _PACKAGE) -> Path | None:
    """Return the extension file in the package folder, or None.

    Raises:
        ExtensionError: There is one, but for another Python.
    """
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        candidate = package / f"_C{suffix}"
        if candidate.is_file():
            return candidate
    others = sorted(package.glob("_C.*.so"))
    if others:
        raise ExtensionError(
            f"the compiled extension {others[0]} was built for another Python",
            expected=f"_C{importlib.machinery.EXTENSION_SUFFIXES[0]}",
            got=", ".join(other.name for other in others),
            hint=REBUILD,
        )
    return None


def read_facts(path: Path) -> dict[str, Any]:
    """Read the build facts out of an extension file without loading it.

    Raises:
        ExtensionError: The file carries no readable marker.
    """
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                start = view.find(_MARKER)
                end = view.find(b"\0", start) if start >= 0 else -1
                text = view[start + len(_MARKER) : end] if end >= 0 else b""
        except ValueError:  # an empty file cannot be mapped
            text = b""
    try:
        facts = json.loads(text)
        if not isinstance(facts, dict) or not isinstance(facts["torch"], str) or "torch_cuda" not in facts:
            raise ValueError("facts are missing")
    except (ValueError, KeyError) as error:
        raise ExtensionError(
            f"the compiled extension {path} carries no build facts", expected=_MARKER.decode() + "{...}", hint=REBUILD
        ) from error
    return facts


def check_facts(facts: dict[str, Any], path: Path) -> None:
    """Refuse an extension that was built for another torch release or another CUDA.

    Raises:
        ExtensionError: It does not fit; the message says how to rebuild it.
    """
    built = (_release(facts["torch"]), facts["torch_cuda"])
    running = (_release(torch.__version__), torch.version.cuda)
    if built != running:
        raise ExtensionError(
            f"the compiled extension {path} was built for another torch",
            expected=_describe(*running),
            got=_describe(*built),
            hint=REBUILD + "; or EQUIVENGINE_EXTENSION=off for plain PyTorch",
        )


def load() -> ExtensionStatus:
    """Load the extension, once in a process, as `EQUIVENGINE_EXTENSION` says.

    Loading registers the kernels and, with them, autograd rules that refuse to differentiate a bare operator.

    Returns:
        The status: `loaded` is False where the extension is off, or missing under `auto`.

    Raises:
        ExtensionError: The file does not fit the running torch or cannot be loaded, or it is required and missing.
        UsageError: `EQUIVENGINE_EXTENSION` is not understood.
    """
    global _module
    with _lock:
        if _module is not None:
            return _loaded_status()
        if mode() == "off":
            return _off_status()
        path = find()
        if path is None:
            status = _missing_status()
            if mode() == "require":
                raise ExtensionError(
                    "EQUIVENGINE_EXTENSION=require, but there is no compiled extension",
                    expected=f"{_PACKAGE}/_C{importlib.machinery.EXTENSION_SUFFIXES[0]}",
                    got="no such file",
                    hint="build it: `make setup`, or `pip install --no-build-isolation .`",
                )
            return status
        check_facts(read_facts(path), path)
        try:
            _module = importlib.import_module("equivengine._C")
        except (ImportError, OSError) as error:
            raise ExtensionError(
                f"the compiled extension {path} cannot be loaded", got=str(error), hint=REBUILD
            ) from error
        return _loaded_status()


def status() -> ExtensionStatus:
    """Describe the extension without loading it; never raises for one that does not fit."""
    if _module is not None:
        return _loaded_status()
    path: Path | None = None
    facts: dict[str, Any] = {}
    try:
        if mode() == "off":
            return _off_status()
        path = find()
        if path is None:
            return _missing_status()
        facts = read_facts(path)
        check_facts(facts, path)
    except (ExtensionError, UsageError) as error:
        return ExtensionStatus(available=False, loaded=False, reason=str(error), path=path, facts=facts)
    return ExtensionStatus(available=True, loaded=False, reason="present; not used yet", path=path, facts=facts)


@functools.cache
def kernel_path(device_type: str) -> str | None:
    """Return the name of the compiled kernels for a device type ("cpu-avx2", "cuda", ...), or None.

    Valid once `load` has returned.
    """
    if _module is None:
        return None
    facts = _loaded_status().facts
    if device_type == "cpu":
        return f"cpu-{facts['isa_chosen']}"
    if device_type == "cuda" and facts["cuda"] is not None:
        return "cuda"
    return None


@functools.cache
def kernel_dtypes() -> frozenset[torch.dtype]:
    """Return the dtypes that the compiled kernels take; valid once `load` has returned."""
    if _module is None:
        return frozenset()
    return frozenset(getattr(torch, name) for name in _loaded_status().facts["kernel_dtypes"])


def _loaded_status() -> ExtensionStatus:
    assert _module is not None
    assert _module.__file__ is not None
    facts = json.loads(_module.build_facts().removeprefix(_MARKER.decode()))
    facts["isa_chosen"] = _module.cpu_isa()
    return ExtensionStatus(
        available=True, loaded=True, reason="loaded", path=Path(_module.__file__).resolve(), facts=facts
    )


def _off_status() -> ExtensionStatus:
    return ExtensionStatus(
        available=False, loaded=False, reason="off: EQUIVENGINE_EXTENSION=off asks for plain PyTorch"
    )


def _missing_status() -> ExtensionStatus:
    return ExtensionStatus(
        available=False,
        loaded=False,
        reason="no compiled extension: plain PyTorch formulas run instead; `make setup` or "
        "`pip install --no-build-isolation .` builds it",
    )


def _release(version: str) -> str:
    return version.partition("+")[0]


def _describe(torch_release: str, cuda: str | None) -> str:
    return f"torch {torch_release} " + (f"with CUDA {cuda}" if cuda else "without CUDA")
