"""How often intervals hold that decide when to stop: `python bench/stopping.py`.

Samples are drawn from distributions whose median is known, and stopped at the first look at which the interval is
narrow enough. Counted are, for each distribution and tolerance:

- covered: samples whose interval, where they stopped, holds the true median.
- any look: samples whose intervals at all looks hold it: what covers whatever rule stops at a look.
- used: observations, mean.
- ratio: pairs of samples, each stopped by itself, for which the 95% bootstrap interval of the ratio of their medians
  holds, as of `random_over_null` of the ldlc probe.

Of ratios of medians (`RatioRule`, `ratio_tolerance` of ldlc) the same is counted, over pairs of samples of which the
one that is known less well grows; beside it the bootstrap interval of what was drawn where they stopped.

The same is counted of naive looks, at each of which an interval is taken that would cover 95% were it the only one.
Beside two textbook distributions there are the constants that the ldlc probe measures on digits, as a population.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import machine
import numpy as np
import torch

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine.statistics import bootstrap, ratio_of_medians
from equivengine.stopping import RatioRule, looks, ranks
from equivengine_plugins.probes.ldlc.parameters import LdlcParams
from equivengine_plugins.probes.ldlc.sampling import Place, sample

HERE = Path(__file__).parent
RANDOM: Literal["random"] = "random"
NULL: Literal["null"] = "null"
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
        params = LdlcParams(directions=size, null_directions=size)
        task = ProbeTask(encoder, [x, x], params, 0, sample_digests=[image.digest] * 2)
        exact = task.jacobian(x, precision="fp64")
        rows = eqv.linalg.svd(exact.dense(), vectors=True).Vh
        assert rows is not None
        for kind, place in (
            (RANDOM, Place(task, task.jacobian(x), None)),
            (NULL, Place(task, exact, eqv.linalg.Subspace(rows))),
        ):
            found.append(_finite(f"ldlc {kind}, digit {number}", sample([place], kind)[0].along.tangent))
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


def measure_ratio(
    above: Population, below: Population, tolerances: Sequence[float], samples: int, pairs: int, resamples: int
) -> Iterator[dict[str, Any]]:
    """For each tolerance a row: the ratio of two medians by `RatioRule`, beside the bootstrap of what was drawn."""
    parts = (above, below)
    values = [one.draw(np.random.Generator(np.random.Philox(key)), (samples, CAP)) for key, one in enumerate(parts, 11)]
    truth = above.median / below.median
    every = np.ones(samples, dtype=bool)
    for (low, high), (least, most) in itertools.product(*map(_ends, values)):
        every &= (low / most <= truth) & (truth <= high / least)
    for tolerance in tolerances:
        rule = RatioRule(tolerance, (CAP, CAP))
        stops = [_grown(rule, *rows) for rows in zip(*values, strict=True)]
        drawn = [
            [rows[k, :count] for rows, count in zip(values, stops[k][1], strict=True)]
            for k in range(min(pairs, samples))
        ]
        plain = [
            bootstrap(*two, statistic=ratio_of_medians, seed=k, resamples=resamples) for k, two in enumerate(drawn)
        ]
        yield {
            "population": f"{above.name} / {below.name}",
            "tolerance": tolerance,
            "looks": "ratio",
            "samples": samples,
            "covered": float(np.mean([low <= truth <= high for (low, high), _ in stops])),
            "any_look": float(every.mean()),
            "used": float(np.mean([sum(counts) for _, counts in stops])),
            "at_cap": float(np.mean([sum(counts) == 2 * CAP for _, counts in stops])),
            "ratio": float(np.mean([one.low <= truth <= one.high for one in plain])),
            "ratio_samples": len(plain),
        }


def _ends(values: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The ends of the interval of one of two medians at each look, [R] each."""
    ordered = [np.sort(values[:, :count], axis=1) for count in looks(CAP)]
    return [(o[:, r - 1], o[:, -r]) for o, r in zip(ordered, ranks(looks(CAP), math.sqrt(PROMISED)), strict=True)]


def _grown(rule: RatioRule, above: np.ndarray, below: np.ndarray) -> tuple[tuple[float, float], list[int]]:
    """The interval of the ratio where it is known or all are drawn, and how many were drawn of each sample."""
    at = [0, 0]
    while True:
        counts = [looks(CAP)[place] for place in at]
        grows = rule.grows(above[: counts[0]], below[: counts[1]])
        if grows is None:
            found = rule.judge(above[: counts[0]], below[: counts[1]]).estimate
            return (found.low, found.high), counts
        at[grows] += 1


def ratio_table(results: Sequence[dict[str, Any]]) -> str:
    """The table of ratios of docs/ldlc.md."""
    lines = [
        "| ratio | tolerance | covered | at every pair of looks | used | bootstrap: covered |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['population']} | {row['tolerance']:g} | {row['covered']:.3f} | {row['any_look']:.3f} "
        f"| {row['used']:,.0f} | {row['ratio']:.2f} |"
        for row in results
        if row["looks"] == "ratio"
    ]
    return "\n".join(lines) + "\n"


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
        if row["looks"] in ("rule", "ratio") and row[name] < PROMISED - slack
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
    print(f"{'':44}{'tol':>6} {'looks':6}{'covered':>9}{'any look':>9}{'ratio':>7}{'used':>8}{'at cap':>8}")
    broken = []
    found = populations(options.images, options.size)
    textbook, constants = found[:2], found[2:]
    pairs = [tuple(textbook), *zip(constants[::2], constants[1::2], strict=True)]
    numbers = (options.tolerance, options.samples, options.pairs, options.resamples)
    for row in itertools.chain(
        *(measure(one, *numbers) for one in found), *(measure_ratio(above, below, *numbers) for above, below in pairs)
    ):
        document["results"].append(row)
        broken += short(row)
        print(
            f"{row['population']:44}{row['tolerance']:6.2f} {row['looks']:6}{row['covered']:9.3f}"
            f"{row['any_look']:9.3f}{row['ratio']:7.3f}{row['used']:8.0f}{row['at_cap']:8.3f}",
            flush=True,
        )
    print("\n" + table(document["results"]))
    print(ratio_table(document["results"]))
    print(machine.write(options.out, machine.file_name("stopping", document["name"]), document))
    if broken:
        sys.exit("not as promised: " + "; ".join(broken))


if __name__ == "__main__":
    main()
