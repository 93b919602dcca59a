"""Cost of a direction against the chunk size: `python bench/chunk_size.py`.

ViT-S/16, random weights, one image. Each product is a ratio to one forward pass per sample (fused attention, batch of
8) in the same process. It is what `JacobianOperator` chooses its chunks on a CPU from.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import machine
import timm
import torch

import equivengine as eqv

CHUNKS = (4, 16, 48)
DIRECTIONS = 48


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Median wall time after one call that is not counted."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="how often each is timed (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder for the JSON file")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", num_classes=0).eval().requires_grad_(False)
    x, batch = torch.rand(3, 224, 224), torch.rand(8, 3, 224, 224)
    with torch.no_grad():
        forward = seconds(lambda: model(batch), max(3, options.rounds)) / len(batch)
    V, U = torch.randn(DIRECTIONS, *x.shape), torch.randn(DIRECTIONS, 384)
    rows = []
    for chunk in CHUNKS:
        operator = eqv.JacobianOperator(lambda z: model(z), x, chunk_size=chunk)
        jvp = seconds(lambda J=operator: J.jvp(V), options.rounds) / DIRECTIONS / forward
        vjp = seconds(lambda J=operator: J.vjp(U), options.rounds) / DIRECTIONS / forward
        rows.append({"chunk": chunk, "jvp_over_forward": jvp, "vjp_over_forward": vjp})
        print(f"chunk {chunk:3}: JVP {jvp:.2f}, VJP {vjp:.2f} forward passes per direction")
    facts = machine.facts()
    document = {"benchmark": "chunk_size", "forward_seconds": forward, "results": rows, "machine": facts}
    print(machine.write(options.out, machine.file_name("chunk_size", facts["cpu"]), document))


if __name__ == "__main__":
    main()
