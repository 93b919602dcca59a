"""Random directions, drawn and measured block by block: all that were asked for, or until their median is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import equivengine as eqv
from equivengine.stopping import Effort, MedianRule, RatioRule, blocks
from equivengine_plugins.probes.ldlc.along import Along, measure_along, random_directions

if TYPE_CHECKING:
    from equivengine_plugins.probes.ldlc.parameters import LdlcParams

#: Bytes of directions that are drawn at a time.
_DRAWN_BYTES = 64 << 20


@dataclass(frozen=True)
class Place:
    """An input, and what is known of the Jacobian there.

    Attributes:
        task: The task whose first sample it is.
        operator: The Jacobian, in the precision that its directions are measured in.
        space: Row space of J for directions of the null space; None for directions of the whole input space.
    """

    task: eqv.ProbeTask[LdlcParams]
    operator: eqv.JacobianOperator
    space: eqv.linalg.Subspace | None


@dataclass(frozen=True)
class Sampled:
    """Random directions of one kind at one place.

    Attributes:
        along: What was measured along them.
        effort: How well their median is known; None without a tolerance.
    """

    along: Along
    effort: Effort | None


def sample(places: Sequence[Place], kind: Literal["random", "null"]) -> list[Sampled]:
    """Draw and measure random directions of one kind at every input, several inputs in one pass; see `sample_both`.

    Args:
        places: Inputs of one encoder, of tasks with equal parameters.
        kind: Which directions, and which parameter holds their number.
    """
    params = places[0].task.params
    growing = Growing(places, params.null_directions if kind == "null" else params.directions, params.tolerance)
    which = list(range(len(places)))
    while which:
        growing.grow(which)
        which = growing.unknown()
    return growing.sampled()


@dataclass(frozen=True)
class Both:
    """Random directions of both kinds at one input.

    Attributes:
        random: Those of the whole input space.
        null: Those of the null space.
        ratio: How well the ratio of their medians is known; None without a tolerance of its own.
    """

    random: Sampled
    null: Sampled
    ratio: Effort | None


def sample_both(random: Sequence[Place], null: Sequence[Place]) -> list[Both]:
    """Draw and measure random directions of both kinds at every input, several inputs in one pass.

    Blocks end where looks are, whether there is a tolerance or not, so that an input computes the same numbers for its
    first k directions in either case: to the bit where the same inputs are in a pass, else but for roundoff. A kind
    grows until its median is known, and, for the sake of the ratio, while it is the one known less well.

    Args:
        random: Inputs of one encoder, of tasks with equal parameters, for directions of the whole input space.
        null: The same inputs, with their row spaces.
    """
    params = random[0].task.params
    caps = (params.directions, params.null_directions)
    kinds = [Growing(places, cap, params.tolerance) for places, cap in zip((random, null), caps, strict=True)]
    rule = RatioRule(params.ratio_tolerance, caps) if params.ratio_tolerance is not None else None
    only_for_the_ratio = rule is not None and params.tolerance is None
    ratios: list[Effort | None] = [None] * len(random)
    wanted = [list(range(len(random))) for _ in kinds]
    while any(wanted):
        for kind, which in zip(kinds, wanted, strict=True):
            kind.grow(which)
        wanted = [[] if only_for_the_ratio else kind.unknown() for kind in kinds]
        if rule is not None:
            for place in range(len(random)):
                values = [kind.along[place].tangent for kind in kinds]
                ratios[place] = rule.judge(*values)
                grows = rule.grows(*values)
                if grows is not None and place not in wanted[grows]:
                    wanted[grows] = sorted([*wanted[grows], place])
    return [Both(*parts) for parts in zip(*(kind.sampled() for kind in kinds), ratios, strict=True)]


class Growing:
    """Directions of one kind at several inputs, each of which has as many as it needs.

    Args:
        places: Inputs of one encoder, of tasks with equal parameters.
        cap: Most directions of each.
        tolerance: Of their medians; None to draw all.

    Attributes:
        along: What was measured at each input so far.
    """

    def __init__(self, places: Sequence[Place], cap: int, tolerance: float | None) -> None:
        self._places, self._blocks = places, blocks(cap)
        self._rule = MedianRule(tolerance, cap) if tolerance is not None else None
        self._taken = [0] * len(places)
        self.along = [Along.join([]) for _ in places]
        self._efforts: list[Effort | None] = [None] * len(places)

    def grow(self, which: Sequence[int]) -> None:
        """Measure the next block of some inputs; those that are as far as each other go through together."""
        for number in sorted({self._taken[place] for place in which}):
            together = [place for place in which if self._taken[place] == number]
            if number == len(self._blocks):  # there are none, or no more
                continue
            measured = _block([self._places[place] for place in together], *self._blocks[number])
            for place, along in zip(together, measured, strict=True):
                self.along[place] = Along.join([self.along[place], along])
                self._taken[place] = number + 1
                if self._rule is not None:
                    self._efforts[place] = self._rule.judge(self.along[place].tangent)

    def unknown(self) -> list[int]:
        """Inputs of which more directions are to be drawn: whose median is not known well enough."""
        efforts = enumerate(self._efforts)
        return [
            place
            for place, effort in efforts
            if self._taken[place] < len(self._blocks) and not (effort is not None and effort.finished)
        ]

    def sampled(self) -> list[Sampled]:
        """What there is."""
        return [Sampled(along, effort) for along, effort in zip(self.along, self._efforts, strict=True)]


def _block(places: Sequence[Place], start: int, stop: int) -> list[Along]:
    """Directions number ``start`` to ``stop - 1`` of every place."""
    import torch

    operator, task = places[0].operator, places[0].task
    size = max(1, _DRAWN_BYTES // (8 * operator.shape[1] * len(places)))
    parts: list[list[Along]] = [[] for _ in places]
    for first in range(start, stop, size):
        count = min(size, stop - first)
        directions = [random_directions(place.task, place.operator, first, count, place.space) for place in places]
        points = [place.operator.x.flatten().to(torch.float64).expand(count, -1) for place in places]
        measured = measure_along(
            operator,
            task.encoder.spec.input_range,
            torch.cat(directions),
            torch.cat(points) if len(places) > 1 else None,
            task.params,
        )
        for into, along in zip(parts, measured.split(len(places)), strict=True):
            into.append(along)
    return [Along.join(each) for each in parts]
