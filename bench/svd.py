"""The leading singular values of a Jacobian, ours against the alternatives: `python bench/svd.py [--model M ...]`.

Everything is counted from a model and an image to the values: tracing, or the primal of reverse mode, included. Ways
that need a dense J get that of `torch.func.jacrev`, and its time is added to theirs. The unit `forwards` is one forward
pass of a sample in a batch of 16. Errors are relative, the largest of the wanted values, against float64: of a dense
float64 Jacobian for n <= 400, otherwise of the float32 J of `torch.func.jacrev` (itself within 1e-6 s_1 of float64).

skerch and plenoptic are optional peers: `pip install skerch plenoptic`.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import time
import warnings
from pathlib import Path
from typing import Any

import clock
import machine
import peak
import torch
from models import MODELS, Subject, differentiable, load
from svd_ways import WAYS, SVDWay, dense
from torch import Tensor

HERE = Path(__file__).parent
#: Largest embedding whose whole Jacobian is made in float64.
_FLOAT64_ROWS = 400


def digits() -> Subject:
    """The shipped model and its first image."""
    import equivengine as eqv

    encoder = eqv.load_encoder("digits", device="cpu")
    return Subject("digits", encoder, encoder.preprocess(eqv.load_images("digits")[0].load()))


def exact_values(subject: Subject, matrix: Tensor) -> Tensor:
    """Singular values in float64, [n], of J [n, m]."""
    if subject.outputs <= _FLOAT64_ROWS:
        encoder = subject.model
        at = getattr(encoder, "at_precision", None)
        model = at("fp64") if at else subject.to(torch.float64).model
        double = Subject(subject.name, model, subject.x.double())
        with differentiable():
            matrix = torch.func.jacrev(double.f, chunk_size=16)(double.x).flatten(1)
        return torch.linalg.svdvals(matrix)
    n = matrix.shape[0]
    gram = torch.zeros(n, n, dtype=torch.float64, device=matrix.device)
    for columns in matrix.split(8192, dim=1):
        wide = columns.double()
        gram.addmm_(wide, wide.T)
    return torch.linalg.eigvalsh(gram).flip(0).clamp_min(0).sqrt()


def timed(run: Any, device: torch.device) -> tuple[Any, float, int]:
    """What it returns, its seconds, and its peak memory above the level before."""
    gc.collect()
    before = peak.reset(device)
    begin = time.perf_counter()
    found = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return found, time.perf_counter() - begin, peak.reached(device) - before


def measure(subject: Subject, ways: list[SVDWay], rank: int, tol: float, rounds: int) -> list[dict[str, Any]]:
    device = subject.x.device
    batch = torch.rand(16, *subject.x.shape, device=device)

    def forward() -> object:
        with torch.no_grad():
            return subject.model(batch)

    clock.warm(forward, device, 1.0)
    matrix, dense_seconds, dense_bytes = timed(lambda: dense(subject), device)
    truth = exact_values(subject, matrix)[:rank].cpu()
    gc.collect()
    rows: dict[str, dict[str, Any]] = {way.name: {"way": way.name, "seconds": [], "forwards": []} for way in ways}
    for _ in range(rounds):
        for way in ways:
            row = rows[way.name]
            if "error" in row:
                continue
            if way.package and importlib.util.find_spec(way.package) is None:
                row["error"] = f"{way.package} is not installed"
                continue
            unit = clock.seconds(forward, device) / len(batch)
            given = (matrix,) if way.needs_dense else ()
            try:
                (values, products, more), seconds, used = timed(
                    lambda w=way, g=given: w.run(subject, rank, tol, *g), device
                )
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"[:600]
                continue
            seconds += dense_seconds if way.needs_dense else 0.0
            row["seconds"].append(seconds)
            row["forwards"].append(seconds / unit)
            off = (values[:rank].double().cpu() - truth[: len(values)]).abs() / truth[: len(values)]
            row |= more | {
                "products": products,
                "relative_error": float(off.max()),
                # Resident memory of one process says nothing of a way: freed pages stay with the allocator.
                "peak_bytes": None if device.type == "cpu" else max(used, dense_bytes if given else 0),
            }
            print(f"{subject.name:9} {way.name:26} {seconds:8.2f} s {seconds / unit:8.1f} forwards", flush=True)
    return list(rows.values())


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add each way's time over that of our own exact way and of jacrev + linalg.svd, in the same round."""
    by_name = {row["way"]: row for row in rows}
    for row in rows:
        for key, name in (("over_exact", "ours, exact"), ("over_stock", "jacrev + linalg.svd")):
            other = by_name.get(name, {})
            if "error" not in row and "error" not in other and other.get("seconds"):
                row[key] = clock.ratios(row["seconds"], other["seconds"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=["digits", *MODELS], default=["digits", "vit_s16", "vit_b16"])
    parser.add_argument("--rank", type=int, help="how many values (default: 8 of digits, otherwise 16)")
    parser.add_argument("--tol", type=float, default=1e-3, help="relative accuracy (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=[way.name for way in WAYS])
    parser.add_argument("--rounds", type=int, default=1, help="how often each is timed (default %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--label", help="goes into the name of the file, so that runs stand side by side")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")

    device = torch.device(options.device)
    document = machine.document("svd", device, tol=options.tol, rounds=options.rounds)
    file = machine.file_name("svd", *([options.label] if options.label else []), document["name"])
    for name in options.model:
        subject = digits() if name == "digits" else load(name, device)
        rank = options.rank or (8 if name == "digits" else 16)
        asked = options.only
        ways = [way for way in WAYS if (way.name in asked if asked else subject.x.numel() <= way.most_inputs)]
        rows = with_ratios(measure(subject, ways, rank, options.tol, options.rounds))
        document["results"].append(
            {"model": name, "n": subject.outputs, "m": subject.x.numel(), "rank": rank, "ways": rows}
        )
        path = machine.write(options.out, file, document)
        for row in rows:
            if "error" in row:
                print(f"{name:9} {row['way']:26} {row['error'][:90]}")
                continue
            over = row.get("over_exact", {}).get("median", float("nan"))
            print(
                f"{name:9} {row['way']:26} {clock.median(row['seconds']):8.2f} s  {over:6.3f} of exact  "
                f"products {row['products']}  error {row['relative_error']:.1e}"
            )
        # Else two models would lie in memory while the next one is made.
        del subject
        gc.collect()
    print(path)


if __name__ == "__main__":
    main()
