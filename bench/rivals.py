"""The smallest L2 change against textbook ways, on maps so small that all can be run: `python bench/rivals.py`.

Each way minimizes |z - x| subject to |f(z) - target| <= goal and z in [0, 1], f being a random two-layer tanh network
(one with a LayerNorm at its end), in float64, on random pairs, none left out. The goal is 1% of the median distance.

- `slsqp`: scipy's sequential quadratic programming from the original; `slsqp, 8 starts`: the best of this and of 8
  random starts.
- `penalty`: Carlini and Wagner (2017): z = (tanh w + 1) / 2, |z - x|^2 + c max(0, |f(z) - target|^2 - (0.9 goal)^2) by
  Adam with a falling rate, c found by bisection.
- `projected`: projected gradient steps on the distance within box and ball, the radius found by bisection.

A way that never meets the goal has no length. Lengths alone are compared: they do not depend on the machine's load.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from scipy import optimize

import equivengine as eqv

#: Steps of one run of Adam or of projected gradients, and bisections around it.
STEPS, BISECTIONS = 200, 10
#: First learning rate of Adam.
RATE = 0.05
WAYS = ("smallest_l2", "slsqp", "slsqp, 8 starts", "projected", "penalty")
Map = Callable[[torch.Tensor], torch.Tensor]


class Net(torch.nn.Module):
    """x -> tanh(tanh(A x) B) C, then a LayerNorm if ``normed``; float64."""

    def __init__(self, n: int, m: int, gain: float, normed: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        sizes = ((4 * n, m, gain), (4 * n, 4 * n, 1.5), (n, 4 * n, 1.0))
        self.layers = torch.nn.ParameterList(
            scale * torch.randn(a, b, generator=generator, dtype=torch.float64) / b**0.5 for a, b, scale in sizes
        )
        self.normed = normed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, m] -> [B, n]."""
        first, second, third = self.layers
        value = torch.tanh(torch.tanh((x - 0.5) @ first.T) @ second.T) @ third.T
        return torch.nn.functional.layer_norm(value, value.shape[-1:]) if self.normed else value


def slsqp(f: Map, x: torch.Tensor, target: torch.Tensor, goal: float, start: np.ndarray) -> float:
    """Length that SLSQP finds from ``start`` [m]; infinite where it misses the goal."""
    origin = x.numpy()

    def slack(z: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.tensor(z)[None].requires_grad_(True)
        value = 1 - (f(point)[0] - target).square().sum() / goal**2
        (slope,) = torch.autograd.grad(value, point)
        return float(value.detach()), slope[0].numpy()

    found = optimize.minimize(
        lambda z: 0.5 * ((z - origin) ** 2).sum(),
        start,
        jac=lambda z: z - origin,
        bounds=[(0, 1)] * len(origin),
        constraints={"type": "ineq", "fun": lambda z: slack(z)[0], "jac": lambda z: slack(z)[1]},
        method="SLSQP",
        options={"maxiter": 300, "ftol": 1e-12},
    )
    return math.sqrt(2 * found.fun) if slack(found.x)[0] > -1e-3 else math.inf


def projected(f: Map, x: torch.Tensor, target: torch.Tensor, goal: float) -> float:
    """Length that projected gradients find."""
    low, high, best = 0.0, float(len(x)) ** 0.5, math.inf
    for _ in range(BISECTIONS):
        radius = (low + high) / 2
        region, z, met = eqv.matching.Region(l2=radius), x[None], False
        for step in range(STEPS):
            point = z.clone().requires_grad_(True)
            square = (f(point)[0] - target).square().sum()
            if float(square.detach()) <= goal**2:
                met = True
                break
            (slope,) = torch.autograd.grad(square, point)
            length = radius / 10 * (1 - step / STEPS)
            z = region.project(z - length * slope / slope.norm().clamp_min(1e-300), x[None], torch.float64)
        if met:
            high, best = radius, float((z - x).norm())
        else:
            low = radius
    return best


def penalty(f: Map, x: torch.Tensor, target: torch.Tensor, goal: float) -> float:
    """Length that Carlini's and Wagner's penalty finds."""
    low, high, weight, best = 0.0, math.inf, 1.0, math.inf
    inside = torch.atanh((2 * x - 1).clamp(-1 + 1e-6, 1 - 1e-6))[None]
    for _ in range(BISECTIONS):
        w, met = inside.clone().requires_grad_(True), False
        adam = torch.optim.Adam([w], lr=RATE)
        for step in range(2 * STEPS):
            adam.param_groups[0]["lr"] = RATE * (1 - step / (2 * STEPS))
            z = (torch.tanh(w) + 1) / 2
            square, change = (f(z)[0] - target).square().sum(), (z - x).square().sum()
            if float(square.detach()) <= goal**2:
                met, best = True, min(best, float(change.detach()) ** 0.5)
            adam.zero_grad()
            (change + weight * torch.relu(square - (0.9 * goal) ** 2)).backward()
            adam.step()
        low, high = (low, weight) if met else (weight, high)
        weight = (low + high) / 2 if math.isfinite(high) else 10 * weight
    return best


def compared(name: str, f: Net, m: int, count: int) -> dict[str, Any]:
    """All ways on random pairs; lengths by way, null where the goal was never met."""
    generator = torch.Generator().manual_seed(3)
    x, others = (torch.rand(count, m, generator=generator, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        target = f(others)
        goal = 1e-2 * float(torch.linalg.vector_norm(f(x) - target, dim=1).median())
    ours = eqv.matching.smallest_l2(f, x, target, distance=goal, precision="fp64")
    lengths = torch.linalg.vector_norm(ours.x - x, dim=1)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    random = np.random.default_rng(0)
    for k in range(count):
        one = (f, x[k], target[k], goal)
        found["smallest_l2"].append(float(lengths[k]) if bool(ours.reached[k]) else math.inf)
        found["slsqp"].append(slsqp(*one, x[k].numpy()))
        several = [slsqp(*one, start) for start in random.random((8, m))]
        found["slsqp, 8 starts"].append(min(found["slsqp"][-1], *several))
        found["projected"].append(projected(*one))
        found["penalty"].append(penalty(*one))
        print(name, k, ", ".join(f"{way} {values[-1]:.4f}" for way, values in found.items()), flush=True)
    return {
        "map": name,
        "pairs": count,
        "goal": goal,
        "lengths": {way: [None if math.isinf(v) else v for v in values] for way, values in found.items()},
    }


def main() -> None:
    """Run; print, and write JSON with --out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--out", type=Path, help="folder for the JSON file")
    options = parser.parse_args()
    document = machine.document("rivals", torch.device("cpu"))
    maps = (
        ("tanh network, n = 3, m = 12", Net(3, 12, 3.0, False), 12),
        ("tanh network, n = 5, m = 30", Net(5, 30, 4.0, False), 30),
        ("the same with a LayerNorm, n = 6, m = 30", Net(6, 30, 4.0, True), 30),
    )
    document["results"] = []
    for name, f, m in maps:
        document["results"].append(compared(name, f, m, options.pairs))
        if options.out:
            machine.write(options.out, machine.file_name("rivals", document["name"]), document)


if __name__ == "__main__":
    main()
