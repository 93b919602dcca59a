"""What must be known of a result to trust and repeat it; stored with every unit."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import equivengine
from equivengine.contracts.encoder import Encoder
from equivengine.contracts.unit import Unit
from equivengine.ops import extension
from equivengine.ops.record import Recording
from equivengine.runtime.registry import PluginRecord

_LIBRARIES = ("torch", "torchvision", "numpy", "h5py", "pluggy", "timm", "open_clip_torch", "pillow", "safetensors")


def describe(
    unit: Unit,
    details: list[dict[str, object]],
    encoder: Encoder,
    plugins: dict[str, PluginRecord],
    operations: Recording,
    seconds: float,
    started: str,
) -> dict[str, Any]:
    """The provenance of one unit, JSON types only; ``details``: what image sets know of its first samples."""
    paths = operations.paths()
    known = [{"details": each} if each else {} for each in details]
    return {
        **environment(),
        "plugins": {
            role: {"name": p.name, "module": p.module, "distribution": p.distribution, "version": p.version}
            for role, p in plugins.items()
        },
        "device": describe_device(encoder.device),
        "precision": unit.precision,
        "attention": unit.attention,
        "narrowed": {p: [str(place) for place in places] for p, places in encoder.narrowed.items()},
        "operations": paths,
        "reference_operations": sorted(name for name, calls in paths.items() if "reference" in calls),
        "random_weights": encoder.spec.random_weights,
        "model": _plain(asdict(encoder.spec)),
        "seed": unit.seed,
        "samples": [
            {**sample.to_json(), **(known[place] if place < len(known) else {})}
            for place, sample in enumerate(unit.samples)
        ],
        "started": started,
        "seconds": seconds,
    }


def environment() -> dict[str, Any]:
    """Versions of this package, its extension, the libraries and the platform."""
    status = extension.status()
    return {
        "equivengine": equivengine.__version__,
        "git_commit": git_commit(),
        "extension": {
            "available": status.available,
            "loaded": status.loaded,
            "reason": status.reason,
            "facts": _plain(status.facts),
        },
        "libraries": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cuda": torch.version.cuda,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def describe_device(device: torch.device) -> dict[str, Any]:
    """Type and name of a device."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "type": "cuda",
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
        }
    return {"type": device.type, "name": _cpu_name()}


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, with "-dirty" if files differ; None if it is no checkout."""
    root = Path(equivengine.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if dirty else commit


def _git(root: Path, *arguments: str) -> str:
    # Within a git hook, GIT_DIR names the repository of that hook.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=environ)
    return done.stdout.strip()


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    versions["torch"] = torch.__version__
    return versions


@functools.cache
def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or sys.platform


def _plain(value: Any) -> Any:
    """Tuples to lists and anything else unknown to its text, so that it becomes JSON."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)
