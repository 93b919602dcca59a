"""How much memory is free, and how large the tensors of a model get: what chunk sizes are chosen from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class WidestTensor(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes; views, of parameters above all, are none."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: this is no code to compile, and to keep Dynamo off it PyTorch would import all of it, for a second."""
        return False

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [returned.alias_info is None for returned in func._schema.returns]
        tensors = out if isinstance(out, tuple | list) and len(made) > 1 else (out,)
        for tensor, new in zip(tensors, made, strict=False):
            if new and isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return out


#: Tensors of the widest layer's size that a tangent and its primal need under torch.func. Measured on a ViT: 9 to 11
#: (the activation of the widest layer has five temporaries under PyTorch's own rule).
_LIVE_TENSORS = 12


def forward_mode_bytes(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> int:
    """Memory that one direction needs under torch.func; costs one forward pass."""
    return _LIVE_TENSORS * widest_bytes(f, x)


def widest_bytes(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> int:
    """Size of the largest tensor that any operation of f makes at x; costs one forward pass."""
    with WidestTensor() as widest:
        f(x)
    return max(widest.bytes, x.numel() * x.element_size())


def free_bytes(device: torch.device) -> int:
    """Bytes that may still be allocated on a device; on Linux within the limits of the control group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _linux_available() or os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError), open(limit) as top, open(used) as now:
            free = min(free, max(0, int(top.read()) - int(now.read())))
    return max(free, 1 << 28)


def _linux_available() -> int | None:
    """MemAvailable, which counts reclaimable cache as free; None where there is no /proc."""
    with contextlib.suppress(OSError), open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
