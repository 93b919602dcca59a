"""Orthonormal rows of a block [k, m], against `torch.linalg.qr`: `python bench/orthonormalise.py`.

Each round times `equivengine.linalg.orthonormalise` and PyTorch's QR of the same numbers in both layouts: [m, k]
contiguous, and the transposed view of the rows. Ratios are medians over rounds of the ratio within a round, to the
better of the two layouts.

Blocks: Gaussian rows mixed by a matrix of the condition number given; and rows of which a quarter depend on others
(copies, sums, zeros). Errors are taken in float64: the largest entry of |Q Q^T - 1|, and |X - L Q| relative to |X| in
the worst row.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clock
import machine
import torch
from torch import Tensor

from equivengine.linalg.orthonormal import Orthonormal, orthonormalise
from equivengine.ops import gram as operators
from equivengine.ops import precision as float32_modes

HERE = Path(__file__).parent
#: Condition numbers, and a block of lower rank.
BLOCKS = ("1", "1e3", "1e6", "1e12", "deficient")
PRECISIONS = {"fp32": torch.float32, "fp64": torch.float64}


def block(kind: str, k: int, m: int, dtype: torch.dtype) -> Tensor:
    """Rows [k, m] of one of `BLOCKS`."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(k, m, generator=generator, dtype=dtype)
    if kind == "deficient":
        for row in range(3, k, 4):
            rows[row] = (rows[row - 1], rows[row - 1] + rows[row - 2], torch.zeros(m, dtype=dtype))[row // 4 % 3]
    elif kind != "1":
        left, right = torch.randn(2, k, k, generator=generator, dtype=torch.float64)
        spectrum = float(kind) ** -torch.linspace(0, 1, k, dtype=torch.float64)
        mix = torch.linalg.qr(left).Q * spectrum @ torch.linalg.qr(right).Q
        for columns in rows.split(8192, dim=1):
            columns.copy_(mix @ columns.double())
    return rows


def errors(rows: Tensor, found: Orthonormal) -> dict[str, float]:
    """Of orthogonality and of reconstruction, by panels of columns in float64."""
    k = len(rows)
    product = torch.zeros(k, k, dtype=torch.float64, device=rows.device)
    left, whole = torch.zeros(2, k, dtype=torch.float64, device=rows.device)
    for X, Q in zip(rows.split(8192, dim=1), found.Q.split(8192, dim=1), strict=True):
        X, Q = X.double(), Q.double()
        product.addmm_(Q, Q.T)
        left += (X - found.L @ Q).square().sum(1)
        whole += X.square().sum(1)
    identity = torch.eye(k, dtype=torch.float64, device=rows.device)
    return {
        "orthogonality": float((product - identity).abs().max()),
        "reconstruction": float((left / whole.clamp_min(torch.finfo(torch.float64).tiny)).sqrt().max()),
    }


def compare(rows: Tensor, rounds: int) -> dict[str, Any]:
    """Times, ratios and errors for one block."""
    columns, out = rows.T.contiguous(), torch.empty_like(rows)
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: orthonormalise(rows, out=out),
        "qr": lambda: torch.linalg.qr(columns),
        "qr_of_view": lambda: torch.linalg.qr(rows.T),
    }
    for way in ways.values():
        clock.warm(way, rows.device, budget=0)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(clock.seconds(way, rows.device))
    better = [min(pair) for pair in zip(times["qr"], times["qr_of_view"], strict=True)]
    found = orthonormalise(rows)
    return {
        "path": operators.path("gram", rows),
        "seconds": {name: statistics.median(each) for name, each in times.items()},
        "seconds_min": {name: min(each) for name, each in times.items()},
        "qr_over_ours": clock.ratios(better, times["ours"]),
        "rank": int(found.rank),
        **errors(rows, found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, nargs="+", default=[8, 16, 64, 256], help="rows")
    parser.add_argument("--m", type=int, default=150_528, help="columns (default: pixels of a 224 x 224 image)")
    parser.add_argument("--block", nargs="+", choices=BLOCKS, default=list(BLOCKS), help="condition number, or rank")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["fp32"])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    options = parser.parse_args()

    device = torch.device(options.device)
    document = machine.document("orthonormalise", device, rounds=options.rounds, m=options.m)
    print(f"{'':34}{'ms':>9}{'QR ms':>9}{'QR / ours':>22}{'|QQ^T-1|':>10}{'|X-LQ|':>9}{'rank':>6}")
    for precision in options.precision:
        for k in options.k:
            for kind in options.block:
                rows = block(kind, k, options.m, PRECISIONS[precision]).to(device)
                with float32_modes.ieee_float32():
                    found = compare(rows, options.rounds)
                row = {"k": k, "m": options.m, "block": kind, "precision": precision, **found}
                document["results"].append(row)
                print(_line(row), flush=True)
    print(machine.write(options.out, machine.file_name("orthonormalise", document["name"]), document))


def _line(row: dict[str, Any]) -> str:
    seconds, ratio = row["seconds"], row["qr_over_ours"]
    label = f"k = {row['k']}, {row['block']}, {row['precision']}, {row['path']}"
    spread = f"{ratio['median']:.2f} ({ratio['min']:.2f} - {ratio['max']:.2f})"
    best = min(seconds["qr"], seconds["qr_of_view"])
    return (
        f"{label:34}{1e3 * seconds['ours']:9.1f}{1e3 * best:9.1f}{spread:>22}"
        f"{row['orthogonality']:10.1e}{row['reconstruction']:9.1e}{row['rank']:6}"
    )


if __name__ == "__main__":
    main()
