"""Derivative rules over K tangents, one operation at a time: `python bench/kernels.py`.

Ways to the same numbers, timed in turn within one process:

- kernel: the compiled rule at a primal that is kept
- reference: the same rule in plain PyTorch
- stock: `torch.func.vmap` over `jvp` or `vjp` of PyTorch's own operation, its primal included
- floor: a copy of the tangents, which nothing beats by much; for attention, one of its four products on packed operands

Rates count what must be read and written once, or the floating-point operations; `of_floor` is the share of the floor's
rate. Errors are relative to the reference
in float64 on the same rounded inputs. For bfloat16 the primal of the norms, softmax and scale stays float32, as in a
`JacobianOperator`. Ratios are medians over rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clock
import machine
import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from equivengine.ops import precision as float32_modes
from equivengine.ops.activation import activation_factor, scale_tangents
from equivengine.ops.attention import attention_jvp, attention_probabilities, attention_vjp
from equivengine.ops.layer_norm import layer_norm_jvp, layer_norm_vjp
from equivengine.ops.registration import TangentOp
from equivengine.ops.rms_norm import rms_norm_jvp, rms_norm_vjp
from equivengine.ops.softmax import softmax_jvp

HERE = Path(__file__).parent
#: Tokens, width and heads of models.
SIZES = {"vit_s16": (197, 384, 6), "vit_b16": (197, 768, 12), "vit_h14": (257, 1280, 16)}
EPS = 1e-6


@dataclass
class Problem:
    """One rule with its arguments, and what it is compared with.

    Attributes:
        rule: The operator.
        arguments: The tangents first, then the primal.
        stock: The same product by PyTorch's own operation.
        floor: A yardstick on the same device.
        count: Bytes that must be moved, or floating-point operations.
        floor_count: The same for the floor.
        unit: Of the rate: ``GB/s`` or ``GFLOP/s``.
    """

    rule: TangentOp
    arguments: tuple[Any, ...]
    stock: Callable[[], Any]
    floor: Callable[[], Any]
    count: float
    floor_count: float
    unit: str = "GB/s"

    def exact(self) -> Any:
        """The reference in float64."""
        return self.rule.plain(*(a.double() if isinstance(a, Tensor) else a for a in self.arguments))


def _moved(t: Tensor, arguments: tuple[Any, ...]) -> int:
    """Bytes of the arguments, and of one result like the tangents."""
    tensors = [t, *(a for a in arguments if isinstance(a, Tensor))]
    return sum(a.numel() * a.element_size() for a in tensors)


def _random(generator: torch.Generator, *shape: int, device: torch.device) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)


def _through(f: Callable[[Tensor], Tensor], x: Tensor, t: Tensor, product: str) -> Callable[[], Any]:
    if product == "jvp":
        return lambda: vmap(lambda v: jvp(f, (x,), (v,))[1])(t)
    return lambda: vmap(vjp(f, x)[1])(t)[0]


def elementwise(topic: str, product: str, size: str, K: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """A rule whose tangents are [K, R, D]: norms, softmax, scale."""
    tokens, width, heads = SIZES[size]
    shape = (
        (heads * tokens, tokens) if topic == "softmax" else (tokens, 4 * width) if topic == "scale" else (tokens, width)
    )
    generator = torch.Generator().manual_seed(0)
    primal = torch.float32 if dtype == torch.bfloat16 else dtype
    x = (3 * _random(generator, *shape, device=device) + 1).to(primal)
    weight = _random(generator, shape[-1], device=device).to(primal)
    t = _random(generator, K, *shape, device=device).to(dtype)
    rest: tuple[Any, ...]
    if topic == "layer_norm":
        rstd = (x.var(-1, correction=0) + EPS).rsqrt()
        rule, rest = (layer_norm_jvp, layer_norm_vjp)[product == "vjp"], (x, x.mean(-1), rstd, weight)
        f = lambda z: F.layer_norm(z, shape[-1:], weight.to(z.dtype), None, EPS)  # noqa: E731
    elif topic == "rms_norm":
        rstd = (x.square().mean(-1) + EPS).rsqrt()
        rule, rest = (rms_norm_jvp, rms_norm_vjp)[product == "vjp"], (x, rstd, weight)
        f = lambda z: F.rms_norm(z, shape[-1:], weight.to(z.dtype), EPS)  # noqa: E731
    elif topic == "softmax":
        rule, rest, f = softmax_jvp, (torch.softmax(x, -1),), lambda z: torch.softmax(z, -1)
    else:
        rule, rest, f = scale_tangents, (activation_factor("gelu", x),), F.gelu
    if rule in (layer_norm_vjp, rms_norm_vjp):
        rest = (*rest, None)
    arguments = (t, *rest)
    return Problem(
        rule, arguments, _through(f, x.to(dtype), t, product), t.clone, _moved(t, arguments), _moved(t, (t,))
    )


def attention(product: str, size: str, K: int, dtype: torch.dtype, device: torch.device, precision: str) -> Problem:
    """Attention's rules; tangents [K, 1, H, L, E] lie in memory as a fused qkv layer puts them."""
    tokens, width, heads = SIZES[size]
    each = width // heads
    generator = torch.Generator().manual_seed(0)
    q, k, v = _random(generator, 1, tokens, 3, heads, each, device=device).to(dtype).transpose(1, 3).unbind(2)
    scale = each**-0.5
    p = attention_probabilities(q, k, None, scale)
    if product == "jvp":
        tangents = _random(generator, K, 1, tokens, 3, heads, each, device=device).to(dtype).transpose(2, 4).unbind(3)
        rule = attention_jvp
    else:
        tangents = (_random(generator, K, 1, tokens, heads, each, device=device).to(dtype).transpose(2, 3),)
        rule = attention_vjp

    def stock() -> Any:
        with sdpa_kernel(SDPBackend.MATH):
            if product == "jvp":
                return vmap(lambda *d: jvp(F.scaled_dot_product_attention, (q, k, v), d)[1])(*tangents)
            return vmap(vjp(F.scaled_dot_product_attention, q, k, v)[1])(*tangents)

    left = _random(generator, K * heads, tokens, each, device=device).to(dtype)
    right = _random(generator, K * heads, each, tokens, device=device).to(dtype)
    flop = 2 * K * heads * tokens * tokens * each
    arguments = (*tangents, q, k, v, p, scale, precision)
    return Problem(rule, arguments, stock, lambda: left @ right, 4 * flop, flop, "GFLOP/s")


def norm(value: Any) -> float:
    """Length of one result, or of several together."""
    tensors = [value] if isinstance(value, Tensor) else list(value)
    return float(torch.stack([torch.linalg.vector_norm(each.double()) for each in tensors]).norm())


def _difference(a: Any, b: Any) -> Any:
    return a.double() - b if isinstance(a, Tensor) else [x.double() - y for x, y in zip(a, b, strict=True)]


def compare(problem: Problem, device: torch.device, rounds: int, budget: float) -> dict[str, Any]:
    """Time and error of each way to one problem."""
    path = problem.rule.path(*problem.arguments)
    ways: dict[str, Callable[[], Any]] = {
        "reference": lambda: problem.rule.plain(*problem.arguments),
        "stock": problem.stock,
        "floor": problem.floor,
    }
    if path != "reference":
        ways = {"kernel": lambda: problem.rule.kernel(*problem.arguments), **ways}
    exact = problem.exact()
    errors, calls, failed = {}, {}, {}
    times: dict[str, list[float]] = {}
    for name, way in ways.items():
        try:
            if name != "floor":
                errors[name] = norm(_difference(way(), exact)) / norm(exact)
            clock.warm(way, device, budget)
            calls[name], times[name] = clock.warm(way, device, budget), []
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"[:600]
    for _ in range(rounds):
        for name in times:
            times[name].append(clock.seconds(ways[name], device, calls[name]))
    base = "kernel" if "kernel" in times else "reference"

    def over(name: str) -> float | None:
        return clock.ratios(times[name], times[base])["median"] if name in times else None

    plain, floor = errors.get("reference"), over("floor")
    return {
        "path": path,
        "seconds": {name: statistics.median(found) for name, found in times.items()},
        "seconds_min": {name: min(found) for name, found in times.items()},
        "unit": problem.unit,
        "rate": 1e-9 * problem.count / statistics.median(times[base]) if base in times else None,
        "reference_over_ours": over("reference"),
        "stock_over_ours": over("stock"),
        "of_floor": floor * problem.count / problem.floor_count if floor is not None else None,
        "relative_error": errors,
        "kernel_error_over_reference_error": errors["kernel"] / plain if "kernel" in errors and plain else None,
        "errors": failed,
    }


RULES = {
    "layer_norm": ("jvp", "vjp"),
    "rms_norm": ("jvp", "vjp"),
    "softmax": ("jvp",),
    "scale": ("jvp",),
    "attention": ("jvp", "vjp"),
}
PRECISIONS = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}


def problems(options: argparse.Namespace, device: torch.device) -> list[tuple[dict[str, Any], Callable[[], Problem]]]:
    """What the options ask for, each with its labels."""
    found: list[tuple[dict[str, Any], Callable[[], Problem]]] = []
    for topic in options.rule:
        modes = [("", "ieee")]
        if topic == "attention" and device.type == "cuda":
            modes += [("tf32", "tf32"), ("tf32x3", "tf32x3")]
        for size in options.model:
            for precision in options.precision:
                for product in RULES[topic]:
                    for name, mode in modes if precision == "fp32" else modes[:1]:
                        label = {"rule": topic, "product": product, "model": size, "precision": name or precision}
                        arguments = (product, size, options.K, PRECISIONS[precision], device)
                        if topic == "attention":
                            found.append((label, lambda a=arguments, m=mode: attention(*a, m)))
                        else:
                            found.append((label, lambda a=arguments, t=topic: elementwise(t, *a)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--model", nargs="+", choices=SIZES, default=list(SIZES), help="whose shapes")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["fp32", "bf16", "fp64"])
    parser.add_argument("--K", type=int, default=16, help="tangents (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default %(default)s)")
    parser.add_argument("--budget", type=float, default=0.02, help="seconds of one timing (default %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")

    device = torch.device(options.device)
    document = machine.document("kernels", device, rounds=options.rounds)
    print(
        f"{'':42}{'ours us':>10}{'rate':>16}{'ref/ours':>10}{'stock/ours':>12}{'of floor':>10}{'error/ref error':>17}"
    )
    for label, make in problems(options, device):
        mode = float32_modes.tensor_float32 if label["precision"] == "tf32" else float32_modes.ieee_float32
        with mode():
            row = {**label, "K": options.K, **compare(make(), device, options.rounds, options.budget)}
        document["results"].append(row)
        print(_line(row), flush=True)
    print(machine.write(options.out, machine.file_name("kernels", document["name"]), document))


def _line(row: dict[str, Any]) -> str:
    label = f"{row['model']} {row['rule']} {row['product']} {row['precision']} {row['path']}"
    ours = row["seconds"].get("kernel", row["seconds"].get("reference"))
    rate = "-" if row["rate"] is None else f"{row['rate']:.1f} {row['unit']}"
    return (
        f"{label:42}{_cell(ours and 1e6 * ours, '10.0f')}{rate:>16}{_cell(row['reference_over_ours'], '10.2f')}"
        f"{_cell(row['stock_over_ours'], '12.2f')}{_cell(row['of_floor'], '10.2f')}"
        f"{_cell(row['kernel_error_over_reference_error'], '11.2f')}"
    )


def _cell(value: float | None, form: str) -> str:
    return f"{'-':>{form.split('.')[0]}}" if value is None else f"{value:{form}}"


if __name__ == "__main__":
    main()
