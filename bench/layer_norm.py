"""LayerNorm over K tangents, ours against PyTorch's: time and error, `python bench/layer_norm.py`.

Four ways to the same numbers, timed in turn within one process:

- kernel: the compiled rule on saved statistics (what a JVP or VJP costs beyond the primal)
- reference: the same rule in plain PyTorch
- ours: `torch.func.vmap` over `jvp` or `vjp` of `equivengine.ops.layer_norm`, the primal included
- stock: the same over `torch.nn.functional.layer_norm`, the primal included

Errors are relative to the same formula in float64 on the same (rounded) inputs, so the float64 reference has none.
Ratios are medians over rounds of the
ratio within a round, so that a slow moment of the machine hits both sides.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import torch
from torch.func import jvp, vjp, vmap
from torch.nn import functional as F

from equivengine.ops.layer_norm import layer_norm, layer_norm_jvp, layer_norm_vjp

HERE = Path(__file__).parent
#: K tangents, R rows, D features: the digits model, ViT-S/16, ViT-B/16, ViT-H/14.
SHAPES = [(64, 17, 96), (16, 197, 384), (8, 197, 768), (8, 257, 1280)]
EPS = 1e-6

Way = Callable[[], torch.Tensor]


def ways(direction: str, x: torch.Tensor, weight: torch.Tensor, t: torch.Tensor) -> tuple[str, dict[str, Way]]:
    """Ways to push tangents, or pull cotangents, t [K, R, D] through a LayerNorm at x [R, D]; and what ours runs."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = wide.mean(-1)
    rstd = (wide.var(-1, correction=0) + EPS).rsqrt()
    rule = layer_norm_jvp if direction == "jvp" else layer_norm_vjp
    dim = [x.shape[-1]]

    def through(function: Callable[..., torch.Tensor]) -> Way:
        def f(z: torch.Tensor) -> torch.Tensor:
            return function(z, dim, weight, None, EPS)

        if direction == "jvp":
            return lambda: vmap(lambda v: jvp(f, (x,), (v,))[1])(t)
        return lambda: vmap(vjp(f, x)[1])(t)[0]

    found: dict[str, Way] = {
        "reference": lambda: rule.plain(t, x, mean, rstd, weight),
        "ours": through(layer_norm),
        "stock": through(F.layer_norm),
    }
    path = rule.path(t, x, mean, rstd, weight)
    if path != "reference":
        found = {"kernel": lambda: rule.kernel(t, x, mean, rstd, weight), **found}
    return path, found


def seconds(way: Way, device: torch.device, calls: int) -> float:
    """Wall time of one call, over `calls` in a row."""
    if device.type == "cuda":
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(calls):
            way()
        stop.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(stop) / 1e3 / calls
    begin = time.perf_counter()
    for _ in range(calls):
        way()
    return (time.perf_counter() - begin) / calls


def compare(
    direction: str, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, rounds: int, budget: float
) -> dict[str, Any]:
    """Time and error of each way for one shape."""
    tangents, rows, features = shape
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(rows, features, generator=generator, dtype=torch.float64) + 1).to(device, dtype)
    weight = torch.randn(features, generator=generator, dtype=torch.float64).to(device, dtype)
    t = torch.randn(tangents, rows, features, generator=generator, dtype=torch.float64).to(device, dtype)
    exact = ways(direction, x.double(), weight.double(), t.double())[1]["reference"]()
    path, candidates = ways(direction, x, weight, t)
    errors, calls = {}, {}
    for name, way in candidates.items():
        got = way().double()
        errors[name] = float(torch.linalg.vector_norm(got - exact) / torch.linalg.vector_norm(exact))
        seconds(way, device, 2)
        once = seconds(way, device, 1)
        calls[name] = max(1, min(1000, round(budget / max(once, 1e-6))))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, way in candidates.items():
            times[name].append(seconds(way, device, calls[name]))

    def ratio(slow: str, fast: str) -> float | None:
        if fast not in times:
            return None
        return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))

    return {
        "direction": direction,
        "K": tangents,
        "R": rows,
        "D": features,
        "dtype": str(dtype).removeprefix("torch."),
        "device": device.type,
        "path": path,
        "seconds": {name: statistics.median(found) for name, found in times.items()},
        "seconds_min": {name: min(found) for name, found in times.items()},
        "relative_error": errors,
        "reference_over_kernel": ratio("reference", "kernel"),
        "stock_over_ours": ratio("stock", "ours"),
        "kernel_error_over_reference_error": errors["kernel"] / errors["reference"]
        if "kernel" in errors and errors["reference"] > 0
        else None,
    }


def shape_of(text: str) -> tuple[int, int, int]:
    """Read `KxRxD`."""
    tangents, rows, features = (int(part) for part in text.split("x"))
    return tangents, rows, features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", type=shape_of, default=SHAPES, metavar="KxRxD")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default %(default)s)")
    parser.add_argument("--budget", type=float, default=0.02, help="seconds of one timing (default %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    options = parser.parse_args()

    facts = machine.facts()
    devices = [torch.device("cpu")] + ([torch.device("cuda")] if torch.cuda.is_available() else [])
    rows = [
        compare(direction, shape, getattr(torch, dtype), device, options.rounds, options.budget)
        for device in devices
        for dtype in options.dtypes
        for shape in options.shapes
        for direction in ("jvp", "vjp")
    ]
    gpus = [torch.cuda.get_device_name(0)] if torch.cuda.is_available() else []
    document = {"benchmark": "layer_norm", "threads": torch.get_num_threads(), "results": rows, "machine": facts}
    path = machine.write(options.out, machine.file_name("layer_norm", facts["cpu"], *gpus), document)

    print(f"{'':38}{'kernel us':>10}{'ref/kernel':>12}{'ours us':>10}{'stock/ours':>12}{'error/ref error':>17}")
    for row in rows:
        label = f"{row['device']} {row['dtype']} {row['direction']} {row['K']}x{row['R']}x{row['D']}"
        micro = {name: 1e6 * value for name, value in row["seconds"].items()}
        print(
            f"{label:38}{_cell(micro.get('kernel'), '10.0f')}{_cell(row['reference_over_kernel'], '12.2f')}"
            f"{_cell(micro['ours'], '10.0f')}{_cell(row['stock_over_ours'], '12.2f')}"
            f"{_cell(row['kernel_error_over_reference_error'], '17.2f')}"
        )
    print(f"{facts['cpu']}, {torch.get_num_threads()} threads, medians of {options.rounds} rounds -> {path}")


def _cell(value: float | None, form: str) -> str:
    return f"{'-':>{form.split('.')[0]}}" if value is None else f"{value:{form}}"


if __name__ == "__main__":
    main()
