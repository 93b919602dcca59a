"""How often intervals hold that decide when to stop: `python bench/stopping.py`.

Samples are drawn from distributions whose median is known, and stopped at the first look at which the interval is
narrow enough. Counted are, for each distribution and tolerance:

- covered: samples whose interval, where they stopped, holds the true median.
- any look: samples whose intervals at all looks hold it: what covers whatever rule stops at a look.
- used: observations, mean.
- ratio: pairs of samples, each stopped by itself, for which the 95% bootstrap interval of the ratio of their medians
  holds, as of `random_over_null` of the ldlc probe.

The same is counted of naive looks, at each of which an interval is taken that would cover 95% were it the only one.
Beside two textbook distributions there are the constants that the ldlc probe measures on digits, as a population.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine.statistics import bootstrap, ratio_of_medians
from equivengine.stopping import looks, ranks
from equivengine_plugins.probes.ldlc.parameters import LdlcParams
from equivengine_plugins.probes.ldlc.sampling import Place, sample

HERE = Path(__file__).parent
CAP = 4096
#: Coverage that is promised; what is counted may fall short of it by chance, by 3 standard errors.
PROMISED = 0.95


@dataclass(frozen=True)
class Population:
    """A distribution.

    Attributes:
        name: What it is.
        draw: Makes samples, from a generator and a shape.
        median: Its true median.
    """

    name: str
    draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    median: float


def populations(images: int, size: int) -> list[Population]:
    """Textbook distributions, and constants along random directions at images of the digits."""
    found = [
        Population("exponential", lambda g, shape: g.exponential(size=shape), math.log(2)),
        Population("lognormal, sigma 0.25", lambda g, shape: g.lognormal(0, 0.25, shape), 1.0),
    ]
    encoder, digits = eqv.load_encoder("digits", device="cpu"), eqv.load_images("digits")
    for number in range(images):
        image = digits[number]
        x = encoder.preprocess(image.load())
        task = ProbeTask(encoder, [x, x], LdlcParams(directions=size), 0, sample_digests=[image.digest] * 2)
        values = sample([Place(task, task.jacobian(x), None)], "random")[0].along.tangent
        found.append(_finite(f"ldlc random, digit {number}", values))
    return found


def _finite(name: str, values: np.ndarray) -> Population:
    ordered = np.sort(values)[: len(values) - (len(values) + 1) % 2]  # an odd number: the median is one of them
    return Population(name, lambda g, shape: g.choice(ordered, shape), float(np.median(ordered)))


@dataclass(frozen=True)
class Looked:
    """Samples at each look, [R, looks]: ends of intervals, and half-widths over the median."""

    low: np.ndarray
    high: np.ndarray
    width: np.ndarray


def looked_at(values: np.ndarray) -> dict[str, Looked]:
    """Intervals of samples [R, CAP] by the rule and by naive looks."""
    cuts = {"rule": ranks(looks(CAP)), "naive": tuple(ranks((count,))[0] for count in looks(CAP))}
    found: dict[str, list[tuple[np.ndarray, ...]]] = {how: [] for how in cuts}
    for place, count in enumerate(looks(CAP)):
        part = np.sort(values[:, :count], axis=1)
        for how in cuts:
            rank = cuts[how][place]
            low, high = part[:, rank - 1], part[:, -rank]
            found[how].append((low, high, (high - low) / 2 / np.abs(np.median(part, axis=1))))
    return {
        how: Looked(*(np.stack(column, axis=1) for column in zip(*rows, strict=True))) for how, rows in found.items()
    }


def stopped(width: np.ndarray, tolerance: float) -> np.ndarray:
    """The look at which each sample stops, [R]: the first one that is narrow enough, or the cap."""
    narrow = width <= tolerance
    narrow[:, -1] = True
    return narrow.argmax(axis=1)


def measure(
    population: Population, tolerances: Sequence[float], samples: int, pairs: int, resamples: int
) -> Iterator[dict[str, Any]]:
    """For each tolerance a row for the rule and one for naive looks."""
    values = population.draw(np.random.Generator(np.random.Philox(7)), (samples, CAP))
    half = samples // 2
    for how, seen in looked_at(values).items():
        holds = (seen.low <= population.median) & (population.median <= seen.high)
        for tolerance in tolerances:
            at = stopped(seen.width, tolerance)
            used = np.array(looks(CAP))[at]
            ratio = [
                _ratio_holds(values[k, : used[k]], values[half + k, : used[half + k]], k, resamples)
                for k in range(pairs)
            ]
            yield {
                "population": population.name,
                "tolerance": tolerance,
                "looks": how,
                "samples": samples,
                "covered": float(holds[np.arange(samples), at].mean()),
                "any_look": float(holds.all(axis=1).mean()),
                "used": float(used.mean()),
                "at_cap": float((used == CAP).mean()),
                "ratio": float(np.mean(ratio)),
                "ratio_samples": pairs,
            }


def _ratio_holds(first: np.ndarray, second: np.ndarray, seed: int, resamples: int) -> bool:
    """Whether the bootstrap interval of the ratio holds its true value: both are of one population, so 1."""
    found = bootstrap(first, second, statistic=ratio_of_medians, seed=seed, resamples=resamples)
    return found.low <= 1.0 <= found.high


def table(results: Sequence[dict[str, Any]]) -> str:
    """The table of docs/ldlc.md: a line for each distribution and tolerance, the rule beside naive looks."""
    lines = [
        "| distribution | tolerance | covered | at every look | used | naive: covered | at every look | used |",
        "|---|---|---|---|---|---|---|---|",
    ]
    naive = {(row["population"], row["tolerance"]): row for row in results if row["looks"] == "naive"}
    for row in results:
        if row["looks"] == "rule":
            both = (row, naive[row["population"], row["tolerance"]])
            cells = " | ".join(f"{one['covered']:.3f} | {one['any_look']:.3f} | {one['used']:,.0f}" for one in both)
            lines.append(f"| {row['population']} | {row['tolerance']:g} | {cells} |")
    return "\n".join(lines) + "\n"


def short(row: dict[str, Any]) -> list[str]:
    """What a row of the rule promises and does not hold."""
    slack = 3 * math.sqrt(PROMISED * (1 - PROMISED) / row["samples"])
    return [
        f"{row['population']}, tolerance {row['tolerance']:g}: {name} {row[name]:.3f}"
        for name in ("covered", "any_look")
        if row["looks"] == "rule" and row[name] < PROMISED - slack
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000, help="samples of each distribution (default %(default)s)")
    parser.add_argument("--tolerance", nargs="+", type=float, default=[0.2, 0.1, 0.05])
    parser.add_argument("--images", type=int, default=1, help="digits whose constants are drawn from")
    parser.add_argument("--size", type=int, default=1023, help="constants of each digit")
    parser.add_argument("--pairs", type=int, default=100, help="pairs of samples whose ratio is looked at")
    parser.add_argument("--resamples", type=int, default=200, help="of the bootstrap of ratios")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    options = parser.parse_args()

    document = machine.document("stopping", torch.device("cpu"), cap=CAP, promised=PROMISED)
    print(f"{'':24}{'tol':>6} {'looks':6}{'covered':>9}{'any look':>9}{'ratio':>7}{'used':>8}{'at cap':>8}")
    broken = []
    for population in populations(options.images, options.size):
        for row in measure(population, options.tolerance, options.samples, options.pairs, options.resamples):
            document["results"].append(row)
            broken += short(row)
            print(
                f"{row['population']:24}{row['tolerance']:6.2f} {row['looks']:6}{row['covered']:9.3f}"
                f"{row['any_look']:9.3f}{row['ratio']:7.3f}{row['used']:8.0f}{row['at_cap']:8.3f}",
                flush=True,
            )
    print("\n" + table(document["results"]))
    print(machine.write(options.out, machine.file_name("stopping", document["name"]), document))
    if broken:
        sys.exit("not as promised: " + "; ".join(broken))


if __name__ == "__main__":
    main()
