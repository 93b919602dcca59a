"""Cost of a direction against the size of a pass: `python bench/chunk_size.py`.

`JacobianOperator` bounds what one pass over its program uses; on a CPU that is `_CACHE_BYTES`, of which each direction
takes `_MARGIN` times what the program counts. Here the bound is swept by chunk size. Each product is a ratio to one
forward pass per sample (fused attention, a batch of 8) of the same round, in which all sizes are timed in turn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import clock
import machine
import torch
from models import MODELS, load

import equivengine as eqv

#: Bytes of one pass.
BOUNDS = tuple(mebibytes << 20 for mebibytes in (8, 16, 32, 64, 128, 256))
DIRECTIONS = 64
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=["vit_s16", "vit_b16"])
    parser.add_argument("--precision", nargs="+", default=["fp32"])
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder for the JSON file")
    options = parser.parse_args()
    device = torch.device("cpu")
    document = machine.document("chunk_size", device, rounds=options.rounds, directions=DIRECTIONS)
    for name in options.model:
        subject = load(name, device)
        batch = torch.rand(BATCH, *subject.x.shape)
        V, U = torch.randn(DIRECTIONS, *subject.x.shape), torch.randn(DIRECTIONS, subject.outputs)
        for precision in options.precision:
            # One operator for all sizes: a program is the same whatever goes through it at once.
            operator = eqv.JacobianOperator(subject.model, subject.x, precision=precision)
            each = operator.bytes_per_direction()
            chunks = {bound: max(1, min(DIRECTIONS, bound // each)) for bound in BOUNDS}
            times: dict[tuple[str, int], list[float]] = {(p, c): [] for p in ("jvp", "vjp") for c in chunks.values()}
            forward: list[float] = []
            operator.jvp(V[:1]), operator.vjp(U[:1])
            with torch.no_grad():
                subject.model(batch)
            for _ in range(options.rounds):
                with torch.no_grad():
                    forward.append(clock.seconds(lambda m=subject.model, b=batch: m(b), device) / BATCH)
                for (product, chunk), found in times.items():
                    # As many directions as whole passes hold: a short last pass would count against a size.
                    given = (V if product == "jvp" else U)[: DIRECTIONS // chunk * chunk]
                    operator._chunk_size = chunk
                    call = getattr(operator, product)
                    found.append(clock.seconds(lambda c=call, g=given: c(g), device) / len(given))
            for bound, chunk in chunks.items():
                row = {
                    "model": name,
                    "precision": precision,
                    "bytes_per_direction": each,
                    "bytes": bound,
                    "chunk": chunk,
                }
                for product in ("jvp", "vjp"):
                    row[f"{product}_over_forward"] = clock.ratios(times[product, chunk], forward)
                document["results"].append(row)
                jvp, vjp = (row[f"{product}_over_forward"]["median"] for product in ("jvp", "vjp"))
                print(
                    f"{name} {precision} {bound >> 20:4} MiB, chunk {chunk:3}: JVP {jvp:.2f}, VJP {vjp:.2f} forward "
                    "passes per direction",
                    flush=True,
                )
    print(machine.write(options.out, machine.file_name("chunk_size", document["name"]), document))


if __name__ == "__main__":
    main()
