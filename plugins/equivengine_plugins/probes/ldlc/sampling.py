"""Random directions, drawn and measured block by block: all that were asked for, or until their median is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import equivengine as eqv
from equivengine.stopping import Effort, MedianRule, blocks
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
    """Draw and measure random directions at every place, several places in one pass.

    Blocks end where looks are, whether there is a tolerance or not, so that a place computes the same numbers for its
    first k directions in either case: to the bit where the same places are in a pass, else but for roundoff. A place
    whose median is known drops out; the others go on.

    Args:
        places: Inputs of one encoder, of tasks with equal parameters.
        kind: Which directions, and which parameter holds their number.
    """
    params = places[0].task.params
    cap = params.null_directions if kind == "null" else params.directions
    rule = MedianRule(params.tolerance, cap) if params.tolerance is not None else None
    found = [Sampled(Along.join([]), None) for _ in places]
    going = list(range(len(places)))
    for start, stop in blocks(cap):
        measured = _block([places[i] for i in going], start, stop)
        for i, along in zip(going, measured, strict=True):
            every = Along.join([found[i].along, along])
            found[i] = Sampled(every, None if rule is None else rule.judge(every.tangent))
        going = [i for i in going if not _finished(found[i])]
        if not going:
            break
    return found


def _finished(sampled: Sampled) -> bool:
    return sampled.effort is not None and sampled.effort.finished


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
