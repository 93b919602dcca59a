"""Solvers of embedding matching against each other on random pairs: `python bench/matching.py [--only WAY ...]`.

Digits: pairs of different classes, originals and targets drawn strictly at random from the held-out set by --seed; no
pair is left out. Distances are relative to the median embedding distance of all pairs of different classes. `gd` is the
paper's gradient descent, clamped to the box after each step and capped at --cap steps; pairs that do not arrive by
then are counted at the cap, which favors it, as does the unit: a product of gradient descent (one direction alone)
costs more than one forward pass.

--model vit_s16 is the other bar: timm's ViT-S/16 with random weights on one pair of photographs.

Seconds are wall time of a whole batch of pairs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

import equivengine as eqv

HERE = Path(__file__).parent
LEVELS = (3e-2, 1e-2, 3e-3, 2e-3, 1e-3)
RATES = (1e-3, 1e-2, 5e-2)
WAYS = ("lm", "lm, no box", "gd", "smallest_l2", "smallest_linf", "lattice")
#: Steps of gradient descent between two lines of progress: each writes what there is so far.
PART = 1000


class Pairs:
    """Pairs of one model: originals, target embeddings, and the distance that others are relative to."""

    def __init__(self, encoder: eqv.Encoder, images: Any, count: int, seed: int) -> None:
        self.encoder = encoder
        inputs = torch.stack([encoder.preprocess(images[k].load()) for k in range(len(images))])
        labels = [images[k].label for k in range(len(images))]
        with torch.no_grad():
            embedded = torch.cat([encoder(part) for part in inputs.split(32)]).double()
        other = torch.tensor([[a is None or a != b for b in labels] for a in labels]).triu(1).to(embedded.device)
        self.median = float(torch.cdist(embedded, embedded)[other].median())
        random = np.random.Generator(np.random.Philox(seed))
        drawn: list[tuple[int, int]] = []
        while len(drawn) < count:
            first, second = (int(k) for k in random.integers(0, len(images), 2))
            if first != second and (labels[first] is None or labels[first] != labels[second]):
                drawn.append((first, second))
        self.drawn = drawn
        self.ids = [f"{images[a].id} -> {images[b].id}" for a, b in drawn]
        self.x = inputs[[a for a, _ in drawn]]
        self.target = embedded[[b for _, b in drawn]]

    def classes(self, embeddings: torch.Tensor) -> list[int]:
        """Predicted classes, where the encoder has a classifier."""
        if not self.encoder.classify_ability:
            return []
        return self.encoder.classify(embeddings.float()).argmax(dim=1).tolist()


def described(pairs: Pairs, found: eqv.matching.Matching, seconds: float) -> dict[str, Any]:
    """What a solver did for each pair; JSON types."""
    change = (found.x.double() - pairs.x.double()).flatten(1)
    relative = found.distance / pairs.median

    def listed(values: torch.Tensor) -> list[float | None]:
        return [None if value != value else float(value) for value in values.tolist()]

    return {
        "relative": relative.tolist(),
        "stop": list(found.stop),
        "jacobians": found.jacobians.tolist(),
        "equivalents": found.cost.equivalents.tolist(),
        "l2": torch.linalg.vector_norm(change, dim=1).tolist(),
        "linf": change.abs().amax(dim=1).tolist(),
        "optimality": listed(found.optimality),
        "to": {f"{level:g}": listed(found.trace.cost_to(level * pairs.median)) for level in LEVELS},
        "l2_at": {f"{level:g}": listed(found.trace.l2_at(level * pairs.median)) for level in LEVELS},
        "class": pairs.classes(found.residual + pairs.target),
        "target_class": pairs.classes(pairs.target),
        "in_box": [float(found.x.min()), float(found.x.max())],
        "seconds": seconds,
    }


def timed(run: Any) -> tuple[Any, float]:
    """A result and the seconds that it took."""
    start = time.perf_counter()
    found = run()
    return found, time.perf_counter() - start


def descent(
    pairs: Pairs,
    rates: Sequence[float],
    cap: int,
    level: float,
    keep: Callable[[dict[str, dict[str, Any]]], None],
    part_steps: int = PART,
) -> dict[str, dict[str, Any]]:
    """Clamped gradient descent at several rates in one batch, in parts, so that progress shows; who has arrived leaves.

    ``keep`` is handed the rows after each part, their ``cap`` being the steps made so far: a run that is ended early
    leaves a measurement with a lower cap. ``seconds`` of each row is its share of the batch's.
    """
    count, every = len(pairs.x), len(pairs.x) * len(rates)
    x, target = pairs.x.repeat(len(rates), 1, 1, 1), pairs.target.repeat(len(rates), 1)
    rate = torch.tensor(rates, device=x.device).repeat_interleave(count)
    to = {key: {f"{at:g}": [None] * every for at in LEVELS} for key in ("to", "l2_at")}
    last: dict[str, list[float]] = {key: [0.0] * every for key in ("relative", "equivalents", "l2")}
    left = list(range(every))
    z, steps, seconds = x.clone(), 0, 0.0
    while left and steps < cap:
        many = min(part_steps, cap - steps)
        began = time.perf_counter()
        part = eqv.matching.gradient_descent(
            pairs.encoder,
            x[left],
            target[left],
            start=z[left],
            distance=level * pairs.median,
            rate=rate[left],
            steps=many,
            region=eqv.matching.Region(*pairs.encoder.spec.input_range),
        )
        seconds += time.perf_counter() - began
        for at in LEVELS:
            first = {"to": part.trace.cost_to(at * pairs.median), "l2_at": part.trace.l2_at(at * pairs.median)}
            for key, values in first.items():
                for place, pair in enumerate(left):
                    value = float(values[place])
                    if to[key][f"{at:g}"][pair] is None and value == value:
                        to[key][f"{at:g}"][pair] = value + (2 * steps if key == "to" else 0)
        for place, pair in enumerate(left):
            last["relative"][pair] = float(part.distance[place]) / pairs.median
            last["equivalents"][pair] = 2.0 * steps + float(part.cost.equivalents[place])
            last["l2"][pair] = float(torch.linalg.vector_norm(part.x[place].double() - x[pair].double()))
        z[left] = part.x
        steps += many
        left = [pair for place, pair in enumerate(left) if part.stop[place] == "allowance"]
        middle = ", ".join(f"{np.median(last['relative'][k * count : (k + 1) * count]):.1e}" for k in range(len(rates)))
        print(
            f"  gd: {steps} steps, {len(left)} of {every} on their way, medians {middle}; {seconds:.0f} s", flush=True
        )
        found = {}
        for k, one in enumerate(rates):
            mine = slice(k * count, (k + 1) * count)
            rows = {key: {at: values[mine] for at, values in levels.items()} for key, levels in to.items()}
            rows |= {key: values[mine] for key, values in last.items()}  # type: ignore[misc]
            made = steps if left else cap
            found[f"gd, rate {one:g}"] = {**rows, "rate": one, "cap": made, "seconds": seconds / len(rates)}
        keep(found)
    return found


def say(name: str, row: dict[str, Any]) -> None:
    """One line."""
    to = ", ".join(
        f"{at}: {np.median([v for v in values if v is not None]):.0f} ({sum(v is not None for v in values)})"
        for at, values in row["to"].items()
        if any(v is not None for v in values)
    )
    print(
        f"{name}: median relative distance {np.median(row['relative']):.1e}, worst {max(row['relative']):.1e}; "
        f"median L2 {np.median(row['l2']):.2f}; forward equivalents to {to}; {row['seconds']:.1f} s",
        flush=True,
    )


def digits(options: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All ways on the shipped model."""
    pairs = Pairs(
        eqv.load_encoder("digits", device=options.device), eqv.load_images("digits"), options.pairs, options.seed
    )
    solve, median = eqv.matching, pairs.median
    given = (pairs.encoder, pairs.x, pairs.target)
    rows: dict[str, Any] = {}

    def document(ways: dict[str, Any]) -> dict[str, Any]:
        return {"model": "digits", "seed": options.seed, "pairs": pairs.ids, "median": median, "ways": rows | ways}

    def run(name: str, way: Any) -> eqv.matching.Matching:
        found, seconds = timed(way)
        rows[name] = described(pairs, found, seconds)
        say(name, rows[name])
        return found

    if "lm" in options.only:
        run("lm", lambda: solve.levenberg_marquardt(*given, distance=1e-6 * median))
    if "lm, no box" in options.only:
        free = solve.Region.unbounded()
        run(
            "lm, no box",
            lambda: solve.levenberg_marquardt(*given, distance=1e-6 * median, region=free, max_jacobians=200),
        )
    if "smallest_l2" in options.only:
        for level in options.levels:
            run(f"smallest_l2 at {level:g}", lambda level=level: solve.smallest_l2(*given, distance=level * median))
    if "smallest_linf" in options.only:
        run("smallest_linf at 0.01", lambda: solve.smallest_linf(*given, distance=1e-2 * median))
    if "lattice" in options.only:
        first = solve.levenberg_marquardt(*given, distance=1e-5 * median)
        found = run("lattice", lambda: solve.to_lattice(*given, start=first.x, distance=1e-6 * median))
        rows["lattice"]["rounded"] = [each / median for each in found.details["rounded"]]  # type: ignore[union-attr]
        print(f"  by rounding alone: median {np.median(rows['lattice']['rounded']):.1e}")
    if "gd" in options.only:
        rows |= descent(pairs, options.rates, options.cap, 1e-3, lambda gd: keep(document(gd)))
        for rate in options.rates:
            say(f"gd, rate {rate:g}", rows[f"gd, rate {rate:g}"])
    return document({})


def vit_s16(options: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """One pair of photographs on ViT-S/16 with random weights: lm to 1e-3 against gd to 1e-2."""
    encoder = eqv.load_encoder("timm:vit_small_patch16_224?weights=random&seed=0", device=options.device)
    pairs = Pairs(encoder, eqv.load_images("samples"), 1, options.seed)
    given = (encoder, pairs.x, pairs.target)
    rows: dict[str, Any] = {}

    def document(ways: dict[str, Any]) -> dict[str, Any]:
        return {
            "model": "timm:vit_small_patch16_224, random weights",
            "seed": options.seed,
            "pairs": pairs.ids,
            "median": pairs.median,
            "ways": rows | ways,
        }

    for way in ("products", "dense"):
        if f"lm, {way}" in options.only or "lm" in options.only:
            found, seconds = timed(
                lambda way=way: eqv.matching.levenberg_marquardt(*given, distance=1e-3 * pairs.median, jacobian=way)
            )
            rows[f"lm, {way}"] = described(pairs, found, seconds)
            say(f"lm, {way}", rows[f"lm, {way}"])
    if "gd" in options.only:
        rows |= descent(pairs, options.rates, options.cap, 1e-2, lambda gd: keep(document(gd)), PART // 10)
        for rate in options.rates:
            say(f"gd, rate {rate:g}", rows[f"gd, rate {rate:g}"])
    return document({})


def main() -> None:
    """Run what was asked for; print, and write JSON with --out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=["digits", "vit_s16"], default="digits")
    parser.add_argument("--only", nargs="+", default=WAYS, help=f"some of {', '.join(WAYS)}")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cap", type=int, default=25_000, help="steps of gradient descent")
    parser.add_argument("--levels", type=float, nargs="+", default=[3e-2, 1e-2, 3e-3, 2e-3], help="of smallest_l2")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="of gradient descent")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="folder for the JSON file")
    parser.add_argument("--label", help="part of the file's name")
    options = parser.parse_args()
    document = machine.document("matching", torch.device(options.device))
    parts = [options.model, *([options.label] if options.label else []), document["name"]]

    def keep(result: dict[str, Any]) -> None:
        document["results"] = [result]
        if options.out:
            machine.write(options.out, machine.file_name("matching", *parts), document)

    keep((digits if options.model == "digits" else vit_s16)(options, keep))
    if options.out:
        print(options.out / machine.file_name("matching", *parts))


if __name__ == "__main__":
    main()
