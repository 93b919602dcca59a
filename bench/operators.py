"""Products with a Jacobian, ours against stock PyTorch: `python bench/operators.py [--model M ...] [--K K ...]`.

The unit is one forward pass per sample of the stock model (fused attention, no gradients, a batch of K, float32). In
each round everything is timed once, in turn, and ratios are taken within the round. For each way:

- over_forward: a direction, when K go together and everything was prepared before (traced, or a primal kept)
- over_forward_prepared: the same with its preparation included, for K products at a new input
- gflops, of_matrix_product: its rate, and the share of what the model's widest layer reaches as one product of K images
- relative_error: of two directions, against float64

A way that fails is recorded with its error. `--memory` measures peak memory instead: in one process for each way on a
CPU; on a GPU every run notes it.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import clock
import machine
import peak
import torch
from models import MODELS, Subject, differentiable, flops, load, widest_product
from ways import WAYS, Call, Way, at, chosen, float32_mode

import equivengine as eqv

HERE = Path(__file__).parent
#: Directions of a way that takes them one by one.
ONE_BY_ONE = 4
#: Models of a run without `--model`: with all ways, and with ours alone.
COMPARED = ("vit_s16", "vit_b16")
OURS_ALONE = ("clip_b32", "swin_t", "beit_b16")


@dataclass
class Timed:
    """A way in one precision: how it is called, and what is found out about it."""

    way: Way
    precision: str
    directions: torch.Tensor
    call: Call | None = None
    calls: int = 1
    rounds: list[float] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)

    def attempt(self, what: Callable[[], None]) -> None:
        """Run one step; the first failure is recorded and ends this way."""
        if "error" in self.found:
            return
        try:
            what()
        except Exception as error:
            self.call = None
            text = str(error).strip() or "no message"
            self.found["error"] = f"{type(error).__name__}: {text}"[:1500]

    def start(self, subject: Subject, exact: torch.Tensor, budget: float) -> None:
        """Prepare, and call for the first time: time, memory and error."""
        device = subject.x.device
        before = _level(device)
        begin = time.perf_counter()
        self.call = self.way.prepare(subject, self.precision)
        result = self.call(self.directions)
        _wait(device)
        self.found["first_seconds"] = time.perf_counter() - begin
        error = result[: len(exact)].double() - exact
        self.found["relative_error"] = float(torch.linalg.vector_norm(error) / torch.linalg.vector_norm(exact))
        del result, error
        if device.type == "cuda" or budget > self.found["first_seconds"]:
            self.calls = clock.warm(lambda: self.again(), device, budget)
        if device.type == "cuda":
            self.found["peak_bytes"] = torch.cuda.max_memory_allocated(device) - before

    def again(self) -> torch.Tensor:
        """One call."""
        assert self.call is not None
        return self.call(self.directions)

    def anew(self, subject: Subject, forward: Callable[[], float]) -> None:
        """Time preparing and the first call again: what a further input costs, in forward passes made just before."""
        self.call = None
        _collect(subject.x.device)
        unit = forward()
        begin = time.perf_counter()
        self.way.prepare(subject, self.precision)(self.directions)
        _wait(subject.x.device)
        seconds = time.perf_counter() - begin
        self.found["prepared_seconds"] = seconds
        self.found["over_forward_prepared"] = seconds / len(self.directions) / unit


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _collect(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _level(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    _collect(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def exact_products(subject: Subject, V: torch.Tensor, U: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """J V and J^T U in float64 by stock PyTorch, and how far <J v, u> = <v, J^T u> is from holding."""
    double = subject.to(torch.float64)
    with differentiable():
        pushed = torch.stack([torch.func.jvp(double.f, (double.x,), (v,))[1] for v in V.double()])
        pullback = torch.func.vjp(double.f, double.x)[1]
        pulled = torch.stack([pullback(u)[0] for u in U.double()])
    left, right = (pushed * U.double()).sum(), (V.double() * pulled).sum()
    return pushed, pulled, float((left - right).abs() / right.abs())


def forward_passes(subject: Subject, K: int, precisions: set[str]) -> dict[str, Callable[[], object]]:
    """A forward pass of a batch of K, and one product of its widest layer's size, in each precision of the hardware."""
    found: dict[str, Callable[[], object]] = {}
    rows, inputs, outputs = widest_product(subject)
    device = subject.x.device
    for precision in sorted(precisions & {"fp32", "tf32", "bf16"}):
        stock = at(subject, precision)
        batch = torch.rand(K, *subject.x.shape, device=device).to(stock.x.dtype)
        left = torch.randn(K * rows, inputs, device=device).to(stock.x.dtype)
        right = torch.randn(inputs, outputs, device=device).to(stock.x.dtype)

        def forward(stock: Subject = stock, batch: torch.Tensor = batch, precision: str = precision) -> object:
            with torch.no_grad(), float32_mode(precision):
                return stock.model(batch)

        def product(left: torch.Tensor = left, right: torch.Tensor = right, precision: str = precision) -> object:
            with float32_mode(precision):
                return left @ right

        found[f"forward {precision}"], found[f"product {precision}"] = forward, product
    return found


def measure(subject: Subject, K: int, selected: list[tuple[Way, str]], rounds: int, budget: float) -> dict[str, Any]:
    """Everything about one model with K directions."""
    device = subject.x.device
    generator = torch.Generator().manual_seed(1)
    V = torch.randn(K, *subject.x.shape, generator=generator).to(device)
    U = torch.randn(K, subject.outputs, generator=generator).to(device)
    pushed, pulled, adjointness = exact_products(subject, V[:2], U[:2])
    _collect(device)
    yardsticks = forward_passes(subject, K, {"fp32"} | {"tf32" if p == "tf32x3" else p for _, p in selected})
    calls = {name: clock.warm(call, device, budget) for name, call in yardsticks.items()}
    times: dict[str, list[float]] = {name: [] for name in yardsticks}
    all_timed = []
    for way, precision in selected:
        directions = V if way.product == "jvp" else U
        timed = Timed(way, precision, directions[:ONE_BY_ONE] if way.one_by_one else directions)
        exact = pushed if way.product == "jvp" else pulled
        timed.attempt(lambda timed=timed, exact=exact: timed.start(subject, exact, budget))
        all_timed.append(timed)
    for _ in range(rounds):
        for name, call in yardsticks.items():
            times[name].append(clock.seconds(call, device, calls[name]))
        for timed in all_timed:
            timed.attempt(lambda timed=timed: timed.rounds.append(clock.seconds(timed.again, device, timed.calls)))

    def per_sample() -> float:
        return clock.seconds(yardsticks["forward fp32"], device, calls["forward fp32"]) / K

    for timed in all_timed:
        if timed.way.prepares:
            timed.attempt(lambda timed=timed: timed.anew(subject, per_sample))
    counts, (rows, inputs, outputs) = flops(subject), widest_product(subject)
    per_operation = {  # seconds
        name.removeprefix("product "): [each / (2 * K * rows * inputs * outputs) for each in found]
        for name, found in times.items()
        if name.startswith("product")
    }
    forward = {
        name.removeprefix("forward "): [each / K for each in found]
        for name, found in times.items()
        if name.startswith("forward")
    }
    return {
        "model": subject.name,
        "K": K,
        "n": subject.outputs,
        "parameters": sum(p.numel() for p in subject.model.parameters()),
        "gflop": {name: count / 1e9 for name, count in counts.items()},
        "forward_seconds": {name: statistics.median(found) for name, found in forward.items()},
        "matrix_product": {
            "sizes": [K * rows, inputs, outputs],
            "gflops": {name: 1e-9 / statistics.median(found) for name, found in per_operation.items()},
        },
        "adjointness_of_the_float64_products": adjointness,
        "rules": rules(subject),
        "ways": [summary(timed, forward, per_operation, counts["derivative"]) for timed in all_timed],
    }


def summary(
    timed: Timed, forward: dict[str, list[float]], per_operation: dict[str, list[float]], flop: int
) -> dict[str, Any]:
    """What is written down about one way."""
    row: dict[str, Any] = {
        "way": timed.way.name,
        "product": timed.way.product,
        "precision": timed.precision,
        "directions": len(timed.directions),
        **timed.found,
    }
    if "error" in row:
        return row
    each = [seconds / len(timed.directions) for seconds in timed.rounds]
    over = clock.ratios(each, forward["fp32"])
    own = forward.get(timed.precision)
    least = per_operation.get(timed.precision)
    if timed.precision == "tf32x3":
        least = [3 * each for each in per_operation["tf32"]]
    return {
        "over_forward_prepared": over["median"],
        **row,
        "seconds_per_direction": statistics.median(each),
        "over_forward": over,
        "over_forward_same_precision": clock.ratios(each, own)["median"] if own else None,
        "gflops": 1e-9 * flop / statistics.median(each),
        "of_matrix_product": clock.ratios(least, [seconds / flop for seconds in each])["median"] if least else None,
    }


def rules(subject: Subject) -> dict[str, dict[str, int]] | str:
    """By which rules our derivative is evaluated."""
    try:
        return eqv.JacobianOperator(subject.model, subject.x).coverage()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:600]


def show(case: dict[str, Any]) -> None:
    """Print one model's results."""
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in case["matrix_product"]["gflops"].items())
    forward = 1e3 * case["forward_seconds"]["fp32"]
    print(f"{case['model']}, K={case['K']}: forward pass {forward:.2f} ms, matrix product {rates} GFLOP/s")
    for row in case["ways"]:
        label = f"  {row['product']} {row['way']:15} {row['precision']:7}"
        if "error" in row:
            print(f"{label} {row['error'].splitlines()[0][:90]}")
            continue
        over, share = row["over_forward"], row["of_matrix_product"]
        print(
            f"{label}{over['median']:8.2f} ({over['min']:.2f} - {over['max']:.2f}), prepared "
            f"{row['over_forward_prepared']:6.2f}, {row['gflops']:8.0f} GFLOP/s "
            f"({'-' if share is None else f'{share:.2f}'}), error {row['relative_error']:.1e}"
        )
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    """What users type."""
    names = sorted({way.name for way in WAYS})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = f"default: {', '.join(COMPARED)} with all ways, {', '.join(OURS_ALONE)} with ours"
    parser.add_argument("--model", nargs="+", choices=MODELS, help=default)
    parser.add_argument("--K", nargs="+", type=int, help="directions (default 16, and 64 for --memory)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="WAY", help=", ".join(names))
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes for each model")
    parser.add_argument("--product", nargs="+", choices=("jvp", "vjp"), help="default: both, and jvp for --memory")
    default = "default: fp32 bf16, on a GPU tf32 tf32x3 too, and fp32 for --memory"
    parser.add_argument("--precision", nargs="+", choices=("fp32", "fp64", "bf16", "tf32", "tf32x3"), help=default)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (default %(default)s)")
    parser.add_argument("--budget", type=float, default=0.1, help="least seconds of one timing (default %(default)s)")
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--label", help="goes into the name of the file, so that runs stand side by side")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore")
    device = torch.device(options.device)
    topic = "memory" if options.memory else "operators"
    document = machine.document(topic, device, rounds=options.rounds)
    file = machine.file_name(topic, *([options.label] if options.label else []), document["name"])

    if options.memory:
        only = options.only or ["ours_one_pass", "ours", "vmap_jvp"]
        ways = chosen(only, options.product or ["jvp"], options.precision or ["fp32"])
        for model, K in itertools.product(options.model or ["vit_b16"], options.K or [64]):
            for way, precision in ways:
                row = peak.measure(model, K, way, precision, device)
                document["results"].append(row)
                found = row.get("error") or f"{row['peak_bytes'] / 1e6:.0f} MB"
                print(f"{model:9} K={K:<4} {way.product} {way.name:15} {precision:7} {found}", flush=True)
        print(machine.write(options.out, file, document))
        return

    products = options.product or ["jvp", "vjp"]
    precisions = options.precision or ["fp32", "bf16", *(["tf32", "tf32x3"] if device.type == "cuda" else [])]
    for model in options.model or [*COMPARED, *OURS_ALONE]:
        alone = options.model is None and model in OURS_ALONE
        ways = chosen(options.only, products, precisions, ours_alone=alone)
        if options.compile and not alone:
            ways += chosen(["compile_jvp", "compile_vjp"], products, precisions)
        subject = load(model, device)
        for K in options.K or [16]:
            case = measure(subject, K, ways, options.rounds, options.budget)
            show(case)
            document["results"].append(case)
            path = machine.write(options.out, file, document)  # after each: what is measured stays measured
        del subject
        _collect(device)
    print(path)


if __name__ == "__main__":
    main()
