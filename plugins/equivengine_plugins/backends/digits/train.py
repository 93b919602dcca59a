"""Train the embedded digits model: `python -m equivengine_plugins.backends.digits.train --out DIR`.

The same seed, thread count, torch release and instruction set give the same weights bit for bit; elsewhere accuracy
is what `--check` holds. The held-out digits take no part: the result is the last epoch's weights, and the recipe was
chosen on a part of the training digits.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor

from equivengine.errors import EngineError
from equivengine_plugins.backends.digits import augment, split
from equivengine_plugins.backends.digits.model import DigitsViT, DigitsViTConfig
from equivengine_plugins.backends.digits.pixels import INTERPOLATION, SIZE, stack_pixels

SHIPPED = Path(__file__).parent / "data"
WEIGHTS_NAME, CONFIG_NAME, METRICS_NAME = "digits_vit.safetensors", "digits_vit.json", "metrics.json"
LOWEST_ACCURACY = 0.97


@dataclass(frozen=True)
class Recipe:
    """How the model is trained.

    Attributes:
        epochs: Passes over the training digits.
        batch: Images per step.
        learning_rate: Peak of the schedule: linear warm-up, then cosine to zero.
        warmup: Share of the steps that warm up.
        weight_decay: AdamW's, on layer matrices only.
        label_smoothing: Probability mass spread over all classes.
        clip: Largest norm of the whole gradient.
        threads: torch threads; part of what fixes the result.
    """

    epochs: int = 200
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    clip: float = 1.0
    threads: int = 2


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Fix seed, thread count and deterministic kernels inside the block; the last two are restored after it."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def optimizer_for(model: DigitsViT, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW that decays layer matrices and spares norms, biases, positions and the class token."""
    decayed: list[Tensor] = []
    spared: list[Tensor] = []
    for name, parameter in model.named_parameters():
        (decayed if parameter.ndim > 1 and name != "positions" else spared).append(parameter)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.99))


def schedule(step: int, steps: int, warmup: float) -> float:
    """Learning rate at a step over its peak: linear up, cosine down to zero."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def fit(model: DigitsViT, x: Tensor, y: Tensor, mean: float, std: float, recipe: Recipe, seed: int) -> None:
    """Train in place and leave the model in eval mode.

    Args:
        model: A fresh model.
        x: float32 [N, 1, 32, 32] in [0, 1].
        y: int64 [N].
        mean: Subtracted from every pixel.
        std: Divides every pixel.
        recipe: Schedule and regularization.
        seed: Fixes the order of the digits and their distortions.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = optimizer_for(model, recipe)
    per_epoch = len(x) // recipe.batch
    steps, step, started = recipe.epochs * per_epoch, 0, time.monotonic()
    model.train()
    for epoch in range(1, recipe.epochs + 1):
        total = 0.0
        order = torch.randperm(len(x), generator=generator)[: per_epoch * recipe.batch]
        for rows in order.split(recipe.batch):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * schedule(step, steps, recipe.warmup)
            batch = (augment.distort(x[rows], generator) - mean) / std
            loss = F.cross_entropy(model.classify(model(batch)), y[rows], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            total, step = total + loss.item(), step + 1
        if epoch % 20 == 0 or epoch == recipe.epochs:
            print(
                f"epoch {epoch}/{recipe.epochs}  loss {total / per_epoch:.4f}  {time.monotonic() - started:.0f} s",
                flush=True,
            )
    model.eval()


@torch.no_grad()
def predict(model: DigitsViT, x: Tensor, mean: float, std: float) -> Tensor:
    """Predicted digits: x float32 [N, 1, 32, 32] in [0, 1] -> int64 [N]."""
    return model.classify(model((x - mean) / std)).argmax(1)


def wilson(correct: int, total: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927, JASA 22, 209-212); 95% at the default z."""
    share, n = correct / total, total
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half


def describe(model: DigitsViT, mean: float, std: float) -> dict[str, Any]:
    """What a backend must know to run the model: architecture, embedding and preprocessing."""
    return {
        "name": "digits_vit",
        "format_version": 1,
        "architecture": asdict(model.config),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "activation": "gelu (erf)",
        "embedding": {
            "dim": model.config.width,
            "token": model.config.pool,
            "after": "final LayerNorm",
            "l2_normalised": False,
        },
        "classes": [str(digit) for digit in range(model.config.classes)],
        "input": {
            "channels": model.config.channels,
            "height": SIZE,
            "width": SIZE,
            "range": [0.0, 1.0],
            "mean": [mean],
            "std": [std],
            "colour": "PIL mode L, bright strokes on black",
            "resize": "PIL, whole image to 32x32, no crop",
            "interpolation": INTERPOLATION.name.lower(),
        },
        "licence": "Apache-2.0; trained on data under CC BY 4.0, see MODEL_CARD.md",
    }


def train(folder: Path, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train from scratch and write weights, configuration and metrics.

    Args:
        folder: Where the three files go; made if absent.
        recipe: How to train.
        seed: Fixes initial weights, order and distortions.

    Returns:
        The metrics: accuracy and its interval, seed, versions, digests.
    """
    training, heldout = split.load_training(), split.load_heldout()
    x, y = stack_pixels(training.images), torch.from_numpy(training.labels)
    mean, std = round(x.mean().item(), 4), round(x.std().item(), 4)
    started = time.monotonic()
    with reproducible(seed, recipe.threads):
        model = DigitsViT(DigitsViTConfig())
        fit(model, x, y, mean, std, recipe, seed)
        predicted = predict(model, stack_pixels(heldout.images), mean, std).numpy()
    seconds = time.monotonic() - started

    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS_NAME
    weights.write_bytes(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
    wrong = (predicted != heldout.labels).nonzero()[0]
    correct = len(predicted) - len(wrong)
    accuracy = {
        "images": len(predicted),
        "correct": correct,
        "accuracy": correct / len(predicted),
        "wilson_95": list(wilson(correct, len(predicted))),
    }
    config = describe(model, mean, std)
    config["weights"] = {"file": WEIGHTS_NAME, "sha256": split.sha256(weights), "dtype": "float32"}
    config["held_out"] = {**accuracy, "file": split.ARRAYS_NAME, "sha256": split.sha256(split.DATA / split.ARRAYS_NAME)}
    config["training"] = {
        "seed": seed,
        "images": len(y),
        "recipe": asdict(recipe),
        "augmentation": augment.STRENGTHS,
        "torch": torch.__version__,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
    }
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    metrics = {
        **accuracy,
        "errors": [
            {"index": int(heldout.indices[i]), "label": int(heldout.labels[i]), "predicted": int(predicted[i])}
            for i in wrong
        ],
        "training_accuracy": (predict(model, x, mean, std) == y).double().mean().item(),
        "seed": seed,
        "epochs": recipe.epochs,
        "threads": recipe.threads,
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "sha256": {name: split.sha256(folder / name) for name in (WEIGHTS_NAME, CONFIG_NAME)},
    }
    (folder / METRICS_NAME).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


def compare(folder: Path, shipped: Path = SHIPPED) -> str:
    """One line on how fresh weights differ from the shipped ones."""
    if split.sha256(folder / WEIGHTS_NAME) == split.sha256(shipped / WEIGHTS_NAME):
        return "weights: bit-equal to the shipped ones"
    fresh, old = load_file(folder / WEIGHTS_NAME), load_file(shipped / WEIGHTS_NAME)
    if {name: tensor.shape for name, tensor in fresh.items()} != {name: tensor.shape for name, tensor in old.items()}:
        return "weights: another architecture than the shipped ones"
    largest = max((fresh[name] - old[name]).abs().max().item() for name in fresh)
    accuracy = json.loads((shipped / CONFIG_NAME).read_text(encoding="utf-8"))["held_out"]["accuracy"]
    return f"weights: differ from the shipped ones by at most {largest:.3g} (shipped accuracy {accuracy:.2%})"


def main(arguments: list[str] | None = None) -> int:
    """Train the digits model and say how accurate it is on the held-out digits."""
    parser = argparse.ArgumentParser(prog="equivengine_plugins.backends.digits.train", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, configuration and metrics")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs, help="passes over the data (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="fixes weights, order, distortions (default %(default)s)")
    parser.add_argument("--threads", type=int, default=Recipe.threads, help="torch threads (default %(default)s)")
    parser.add_argument("--check", action="store_true", help="compare with the shipped weights; fail below 97%%")
    options = parser.parse_args(arguments)
    try:
        recipe = replace(Recipe(), epochs=options.epochs, threads=options.threads)
        metrics = train(options.out, recipe, options.seed)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    low, high = metrics["wilson_95"]
    print(
        f"held-out accuracy {metrics['accuracy']:.2%} ({metrics['correct']} of {metrics['images']}, "
        f"95% interval {low:.2%} to {high:.2%})"
    )
    if not options.check:
        return 0
    print(compare(options.out))
    return 0 if metrics["accuracy"] >= LOWEST_ACCURACY else 1


if __name__ == "__main__":
    sys.exit(main())
