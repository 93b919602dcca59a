"""Peak memory of ways to K products, each in a process of its own; `bench/operators.py --memory` asks for it.

What is measured is the most in use above the level after model, input, directions and one forward pass. On a CPU that
is resident memory, whose high-water mark Linux resets on request.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from models import load
from ways import WAYS, Way

_STATUS = Path("/proc/self/status")


def measure(model: str, K: int, way: Way, precision: str, device: torch.device) -> dict[str, Any]:
    """Run this file and return what it found, or its error."""
    given = [model, str(K), way.name, way.product, precision, str(device)]
    done = subprocess.run([sys.executable, __file__, *given], capture_output=True, text=True)
    row: dict[str, Any] = {"model": model, "K": K, "way": way.name, "product": way.product, "precision": precision}
    if done.returncode == 0:
        return row | json.loads(done.stdout.splitlines()[-1])
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}: out of memory, perhaps"]
    return row | {"error": said[-1][:600]}


def _resident(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (most since the last reset), in bytes."""
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def reset(device: torch.device) -> int:
    """Begin to watch: bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def reached(device: torch.device) -> int:
    """Most bytes in use since `reset`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")


def main() -> None:
    warnings.filterwarnings("ignore")
    model, K, name, product, precision, device_name = sys.argv[1:]
    device = torch.device(device_name)
    (way,) = (way for way in WAYS if (way.name, way.product) == (name, product))
    subject = load(model, device)
    shape = subject.x.shape if product == "jvp" else (subject.outputs,)
    directions = torch.randn(int(K), *shape, generator=torch.Generator().manual_seed(1)).to(device)
    with torch.no_grad():
        subject.f(subject.x)
    gc.collect()
    before = reset(device)
    call = way.prepare(subject, precision)
    for _ in range(3):  # on a GPU the third one is a replayed graph
        call(directions)
    print(json.dumps({"peak_bytes": reached(device) - before}))


if __name__ == "__main__":
    main()
