"""Wall time of calls, on a CPU or a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

#: Calls that CUDA devices are given before timing: libraries set themselves up, then graphs are recorded.
_WARM_UP = 2


def seconds(call: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Time of one call, over `calls` in a row."""
    if device.type == "cuda":
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(calls):
            call()
        stop.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(stop) / 1e3 / calls
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def warm(call: Callable[[], object], device: torch.device, budget: float) -> int:
    """Call until nothing is done for the first time any more; returns how many calls take `budget` seconds."""
    if device.type == "cuda":
        seconds(call, device, _WARM_UP)
    once = seconds(call, device)
    return max(1, min(1000, round(budget / max(once, 1e-7))))


def median(times: Sequence[float]) -> float:
    """Median of some times."""
    return statistics.median(times)


def ratios(times: Sequence[float], to: Sequence[float]) -> dict[str, float]:
    """Median and extremes of the ratio within a round, so that a slow moment of the machine hits both sides."""
    found = [a / b for a, b in zip(times, to, strict=True)]
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}
