"""Measure the shipped model's Jacobian: `python -m equivengine_plugins.backends.digits.geometry --out FILE`.

Everything is dense float64 by reverse mode, in [0, 1] pixel units, and uses nothing of the engine: these are the
figures in MODEL_CARD.md, and an independent value for what the engine's probes report on this model.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from equivengine_plugins.backends.digits import split
from equivengine_plugins.backends.digits.model import DigitsViT, DigitsViTConfig
from equivengine_plugins.backends.digits.pixels import stack_pixels

SHIPPED = Path(__file__).parent / "data" / "digits_vit.json"


class Embedding:
    """The encoder as the engine sees it: x float64 [1, 32, 32] in [0, 1] -> embedding [n], normalization included."""

    def __init__(self, config_path: Path) -> None:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        self.model = DigitsViT(DigitsViTConfig(**config["architecture"])).eval()
        self.model.load_state_dict(load_file(config_path.parent / config["weights"]["file"]))
        self.model.double().requires_grad_(False)
        self.mean, self.std = config["input"]["mean"][0], config["input"]["std"][0]

    def __call__(self, x: Tensor) -> Tensor:
        """Embed one image: x [1, 32, 32] -> [n]."""
        return self.model((x[None] - self.mean) / self.std)[0]

    def jacobian(self, x: Tensor) -> Tensor:
        """The dense Jacobian at x [1, 32, 32]: [n, m] with m = 1024 pixels."""
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no batching rule for their backward
            return torch.func.jacrev(self)(x).flatten(1)


def gain(jacobian: Tensor, residual: Tensor) -> float:
    """How much more the matching gradient moves the embedding than a random direction does.

    With d = -J^T r / |J^T r|, the ratio of |J d| to |J|_F / sqrt(m), the root mean square of |J u| over random unit u.

    Args:
        jacobian: J, [n, m].
        residual: r = f(x) - f(target), [n].
    """
    gradient = jacobian.T @ residual
    along = (jacobian @ gradient).norm() / gradient.norm()
    return (along / (jacobian.norm() / math.sqrt(jacobian.shape[1]))).item()


def descend(f: Embedding, x: Tensor, target: Tensor, steps: int, every: int) -> tuple[dict[int, float], Tensor, float]:
    """Gradient descent on |f(x) - f(target)|^2 / 2 with the fixed step 1 / s_1^2 of the start, not clamped to [0, 1].

    Args:
        f: The encoder.
        x: Start, [1, 32, 32].
        target: Image to match, [1, 32, 32].
        steps: How many steps.
        every: Measure the gain at every so many steps; the first and the last always.

    Returns:
        Gain by step, the singular values at the start [n], and |r| at the end over |r| at the start.
    """
    goal, gains = f(target), {}
    values = torch.linalg.svdvals(f.jacobian(x))
    first = (f(x) - goal).norm()
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            gains[step] = gain(f.jacobian(x), f(x) - goal)
        z = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((f(z) - goal).square().sum() / 2, z)
        x = x - gradient / values[0] ** 2
    return gains, values, ((f(x) - goal).norm() / first).item()


def first_gains(f: Embedding, x: Tensor, starts: int, targets: int, seed: int) -> np.ndarray:
    """Gain of the first matching gradient from each of some random digits to several others.

    Args:
        f: The encoder.
        x: Digits, [N, 1, 32, 32].
        starts: How many to start from.
        targets: How many to match from each start.
        seed: Fixes the choice.

    Returns:
        [starts * targets].
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    gains = []
    for i in generator.choice(len(x), starts, replace=False):
        jacobian, value = f.jacobian(x[i]), f(x[i])
        others = generator.choice(np.delete(np.arange(len(x)), i), targets, replace=False)
        gains += [gain(jacobian, value - f(x[j])) for j in others]
    return np.array(gains)


def measure(config_path: Path, pairs: int, steps: int, every: int, seed: int) -> dict[str, Any]:
    """Singular values and gradient gains over random ordered pairs of different held-out digits."""
    f, heldout = Embedding(config_path), split.load_heldout()
    x = stack_pixels(heldout.images).double()
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen = [generator.choice(len(x), 2, replace=False).tolist() for _ in range(pairs)]
    runs = [descend(f, x[i], x[j], steps, every) for i, j in chosen]
    gains = np.array([list(run[0].values()) for run in runs])  # [pairs, measured steps]
    values = torch.stack([run[1] for run in runs]).numpy()  # [pairs, n]
    many = first_gains(f, x, starts=60, targets=20, seed=seed)
    ceiling = values[:, 0] * math.sqrt(x[0].numel()) / np.linalg.norm(values, axis=1)
    return {
        "what": "float64, [0, 1] pixel units, held-out digits; gain = |J d| / (|J|_F / sqrt(m))",
        "weights_sha256": split.sha256(config_path.parent / "digits_vit.safetensors"),
        "pairs": chosen,
        "seed": seed,
        "singular_values": {
            "quantiles": [0.1, 0.5, 0.9],
            "by_index": np.quantile(values, [0.1, 0.5, 0.9], axis=0).T.tolist(),
        },
        "frobenius_norm_median": float(np.median(np.linalg.norm(values, axis=1))),
        "first_gradient_gain": {
            "median": float(np.median(gains[:, 0])),
            "min": float(gains[:, 0].min()),
            "max": float(gains[:, 0].max()),
            "largest_possible_median": float(np.median(ceiling)),
        },
        "first_gradient_gain_many_pairs": {
            "pairs": many.size,
            "median": float(np.median(many)),
            "quantiles": [0.05, 0.25, 0.75, 0.95],
            "values": np.quantile(many, [0.05, 0.25, 0.75, 0.95]).tolist(),
        },
        "descent": {
            "steps": steps,
            "step_size": "1 / s_1^2 at the start",
            "clamped": False,
            "measured_at": list(runs[0][0]),
            "median_gain_by_step": np.median(gains, axis=0).tolist(),
            "median_gain": float(np.median(gains)),
            "smallest_median_of_a_pair": float(np.median(gains, axis=1).min()),
            "median_relative_residual_at_end": float(np.median([run[2] for run in runs])),
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure Jacobian spectra and matching-gradient gains of the digits model."""
    parser = argparse.ArgumentParser(prog="equivengine_plugins.backends.digits.geometry", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--config", type=Path, default=SHIPPED, help="digits_vit.json, its weights beside it")
    parser.add_argument("--pairs", type=int, default=20, help="random pairs (default %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="descent steps (default %(default)s)")
    parser.add_argument("--every", type=int, default=5, help="steps between measurements (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="fixes the pairs (default %(default)s)")
    options = parser.parse_args(arguments)
    result = measure(options.config, options.pairs, options.steps, options.every, options.seed)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    first, descent = result["first_gradient_gain"], result["descent"]
    print(f"first gradient gain {first['median']:.1f} ({first['min']:.1f} to {first['max']:.1f})")
    print(f"gain over {descent['steps']} steps {descent['median_gain']:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
