"""The whole measurement of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import equivengine as eqv
from equivengine.stopping import Effort, MedianRule, blocks
from equivengine_plugins.probes.lsb.draws import KINDS, drawn
from equivengine_plugins.probes.lsb.evaluation import Evaluation, Responses
from equivengine_plugins.probes.lsb.lattice import Lattice
from equivengine_plugins.probes.lsb.linear import Linear
from equivengine_plugins.probes.lsb.search import Worst, find_worst

if TYPE_CHECKING:
    from equivengine_plugins.probes.lsb.parameters import LsbParams

#: Random changes that are measured a second time for the noise floor, beside the ones that stand alone.
REPEATED = 4


@dataclass(frozen=True)
class Rounded:
    """What bringing the image onto the lattice did to it.

    Attributes:
        levels: Largest change of a pixel, in levels.
        moved: |f(rounded x) - f(x)|; 0 where x was on the lattice.
    """

    levels: float
    moved: float


@dataclass(frozen=True)
class Measured:
    """What the probe measured at one image.

    Attributes:
        evaluation: The encoder at the image.
        linear: The linear model there.
        rounded: How far the image was off the lattice.
        responses: By kind: ``uniform``, ``signs`` and ``truncation`` of all draws; ``singular`` (pixels by the signs of
            +-v_1), ``pixel`` and ``worst`` of one move.
        efforts: How well the medians of draws are known, by kind; empty without a tolerance.
        pixel: Number of the most sensitive pixel, in C order of the input.
        worst: The search for the worst move.
        noise: Largest |difference of embeddings - the same made again|; see `_noise`.
        worst_again: |f(x + d) - f(x)| of the worst move, made again.
    """

    evaluation: Evaluation
    linear: Linear
    rounded: Rounded
    responses: dict[str, Responses]
    efforts: dict[str, Effort]
    pixel: int
    worst: Worst
    noise: float
    worst_again: float


def measure(task: eqv.ProbeTask[LsbParams]) -> eqv.ProbeResult:
    """Measure one image.

    Raises:
        UsageError: If inputs of this encoder are no images.
        NumericsError: If the Jacobian is zero, or something is not finite.
    """
    from equivengine_plugins.probes.lsb.result import make_result

    params, x = task.params, task.samples[0]
    if x.dim() != 3 or x.shape[0] not in (1, 3):
        raise eqv.UsageError(
            "inputs of this encoder are no images, so they have no 8-bit levels",
            expected="[1 or 3, H, W]",
            got=list(x.shape),
            hint="use the numerics or lipschitz probe",
        )
    lattice = Lattice.around(x.flatten(), task.encoder.spec.input_range, params.levels)
    evaluation = Evaluation(task, lattice)
    linear = Linear.of(task, evaluation)
    responses, efforts = _of_draws(task, evaluation)
    singular = lattice.furthest(
        torch.stack([linear.vectors[0], -linear.vectors[0]]), torch.zeros_like(lattice.start).expand(2, -1)
    )
    chosen = {"singular": _largest(evaluation, singular), "pixel": _worst_pixel(evaluation, linear, params.pixels)}
    worst = find_worst(evaluation, linear, task.stream("starts"), params)
    chosen["worst"] = worst.move
    responses |= {kind: evaluation.responses(move[None]) for kind, move in chosen.items()}
    repeated = torch.cat(
        [
            drawn(task, evaluation, "uniform", 0, min(REPEATED, params.draws)),
            drawn(task, evaluation, "truncation", 0, 1),
            *(move[None] for move in chosen.values()),
        ]
    )
    noise, again = _noise(task, evaluation, repeated)
    return make_result(
        task,
        Measured(
            evaluation=evaluation,
            linear=linear,
            rounded=_rounded(task, evaluation),
            responses=responses,
            efforts=efforts,
            pixel=int(chosen["pixel"].abs().argmax()),
            worst=worst,
            noise=noise,
            worst_again=float(again[-1]),
        ),
    )


def _of_draws(task: eqv.ProbeTask[LsbParams], evaluation: Evaluation) -> tuple[dict[str, Responses], dict[str, Effort]]:
    """Responses to draws of each kind: all that were asked for, or until every median is known.

    The kinds have equally many draws. Blocks end where looks are, with and without a tolerance, so that both compute
    the same numbers for the first of them.
    """
    draws, tolerance = task.params.draws, task.params.draws_tolerance
    rule = MedianRule(tolerance, draws) if tolerance is not None else None
    parts: dict[str, list[Responses]] = {kind: [] for kind in KINDS}
    efforts: dict[str, Effort] = {}
    for start, stop in blocks(draws):
        size = evaluation.chunk(stop - start)
        for kind in KINDS:
            for first in range(start, stop, size):
                moves = drawn(task, evaluation, kind, first, min(size, stop - first))
                parts[kind].append(evaluation.responses(moves))
        if rule is not None:
            efforts = {kind: rule.judge(Responses.join(parts[kind]).measured) for kind in KINDS}
            if all(effort.finished for effort in efforts.values()):
                break
    return {kind: Responses.join(each) for kind, each in parts.items()}, efforts


def _largest(evaluation: Evaluation, moves: torch.Tensor) -> torch.Tensor:
    """The move that the encoder answers most to: [B, m] -> [m]."""
    return moves[int(evaluation.lengths(moves).argmax())]


def _worst_pixel(evaluation: Evaluation, linear: Linear, count: int) -> torch.Tensor:
    """The most sensitive single pixel: the ``count`` largest columns of J are tried, both ways, on the encoder."""
    lattice = evaluation.lattice
    order = linear.column_norms.argsort(descending=True)[:count]
    moves = torch.zeros(2, len(order), len(lattice.start), dtype=torch.int16, device=order.device)
    rows = torch.arange(len(order), device=order.device)
    moves[0, rows, order], moves[1, rows, order] = lattice.lowest[order], lattice.highest[order]
    moves = moves.flatten(0, 1)
    return _largest(evaluation, moves[(moves != 0).any(dim=1)])


def _rounded(task: eqv.ProbeTask[LsbParams], evaluation: Evaluation) -> Rounded:
    x, lattice = task.samples[0], evaluation.lattice
    off = float((x.flatten().double() - lattice.x.double()).abs().max()) / lattice.step
    if torch.equal(x.flatten(), lattice.x):
        return Rounded(off, 0.0)
    f = evaluation.embeddings(torch.stack([x, lattice.x.reshape(x.shape)]))
    return Rounded(off, float(torch.linalg.vector_norm(f[1] - f[0])))


def _noise(task: eqv.ProbeTask[LsbParams], evaluation: Evaluation, moves: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The noise floor, and |f(x + d) - f(x)| of moves [B, m] made again, [B].

    Differences of float32 are held against float64's. There is nothing finer to hold float64 against: there each move
    is made again in a batch of its own, which redraws some of the roundoff.
    """
    if task.precision == "fp32":
        again = Evaluation(task, evaluation.lattice, "fp64").differences(moves)
    else:
        again = torch.cat([evaluation.differences(move) for move in moves.split(1)])
    gap = torch.linalg.vector_norm(evaluation.differences(moves) - again, dim=1)
    floor = (
        evaluation.operator.epsilon * float(torch.linalg.vector_norm(evaluation.value))
        if task.precision == "fp64"
        else 0.0
    )
    return max(float(gap.max()), floor), torch.linalg.vector_norm(again, dim=1)
