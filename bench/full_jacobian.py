"""The whole Jacobian, ours against `torch.func.jacrev`: `python bench/full_jacobian.py [--model M] [--rows N]`.

Everything is counted from a model and an image to J [n, m]: tracing, or the primal of reverse mode, included. `--rows`
takes the first rows only. Errors are those of two rows against float64.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import machine
import torch
from models import MODELS, Subject, differentiable, load
from operators import exact_products
from torch import Tensor
from ways import float32_mode

import equivengine as eqv

HERE = Path(__file__).parent


def ours(subject: Subject, rows: int, precision: str, chunk: int | None) -> Tensor:
    """[rows, m]."""
    operator = eqv.JacobianOperator(subject.model, subject.x, precision=precision, chunk_size=chunk)
    if rows == subject.outputs:
        return operator.dense()
    basis = torch.eye(rows, subject.outputs, dtype=operator.dtype, device=subject.x.device)
    return operator.vjp(basis).flatten(1)


def jacrev(subject: Subject, rows: int, precision: str, chunk: int | None) -> Tensor:
    """[rows, m]."""
    with float32_mode(precision), differentiable():
        return torch.func.jacrev(lambda z: subject.f(z)[:rows], chunk_size=chunk)(subject.x).flatten(1)


WAYS = {
    "ours": (ours, ("fp32", "tf32x3", "tf32", "bf16", "fp64")),
    "jacrev": (jacrev, ("fp32", "tf32")),
}


def measure(run: Callable[[], Tensor], exact: Tensor, device: torch.device, rounds: int) -> dict[str, Any]:
    """Times of whole Jacobians; the first is counted, since each starts from nothing."""
    times = []
    try:
        for _ in range(rounds):
            begin = time.perf_counter()
            matrix = run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - begin)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:600]}
    off = matrix[: len(exact)].double() - exact.flatten(1)
    return {
        "seconds": statistics.median(times),
        "seconds_min": min(times),
        "seconds_max": max(times),
        "relative_error": float(torch.linalg.vector_norm(off) / torch.linalg.vector_norm(exact)),
        "shape": list(matrix.shape),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=["vit_s16"])
    parser.add_argument("--rows", type=int, help="how many rows (default: all)")
    parser.add_argument("--precision", nargs="+", default=["fp32"], help="of ours, and of jacrev where it has it")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--chunk", type=int, help="rows in one pass (default: ours chooses, jacrev takes 16)")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is timed (default %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--label", help="goes into the name of the file, so that runs stand side by side")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")

    device = torch.device(options.device)
    document = machine.document("full_jacobian", device, rounds=options.rounds)
    file = machine.file_name("full_jacobian", *([options.label] if options.label else []), document["name"])
    for model in options.model:
        subject = load(model, device)
        rows = min(options.rows or subject.outputs, subject.outputs)
        basis = torch.eye(2, subject.outputs, device=device)
        exact = exact_products(subject, torch.zeros(2, *subject.x.shape, device=device), basis)[1]
        for way in options.only:
            run, precisions = WAYS[way]
            chunk = options.chunk or (16 if way == "jacrev" else None)
            for precision in (p for p in options.precision if p in precisions):
                found = measure(partial(run, subject, rows, precision, chunk), exact, device, options.rounds)
                row = {"model": model, "n": subject.outputs, "rows": rows, "way": way, "precision": precision, **found}
                document["results"].append(row)
                path = machine.write(options.out, file, document)
                said = row.get("error") or f"{row['seconds']:.2f} s, error {row['relative_error']:.1e}"
                print(f"{model:9} {rows:5} rows {way:7} {precision:7} {said}", flush=True)
        # Else two models would lie in memory while the next one is made.
        del subject
    print(path)


if __name__ == "__main__":
    main()
