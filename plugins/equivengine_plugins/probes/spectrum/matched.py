"""An input that has the embedding of the target and began at the original, to be compared with the original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.yardstick import embeddings
from equivengine_plugins.probes.yardstick import measure as measure_yardstick

if TYPE_CHECKING:
    import torch

    from equivengine_plugins.probes.spectrum.parameters import SpectrumParams

#: Learning rate and steps of gradient descent (Eq. 3 and 4 of the paper), those of the match probe.
_RATE, _STEPS = 1e-2, 3000


@dataclass(frozen=True)
class Matched:
    """What was found.

    Attributes:
        x: The input, [*input_shape], within the input range of the model.
        summary: Scalars by name.
        faults: What to do where the tolerance was not reached; empty where it was.
    """

    x: torch.Tensor
    summary: dict[str, eqv.Scalar]
    faults: list[str]


def match(task: eqv.ProbeTask[SpectrumParams]) -> Matched:
    """Bring the original of a pair to the embedding of its target by the solver ``matched``.

    Raises:
        UsageError: If the original lies outside of the input range, or the references make no yardstick.
        NumericsError: If an embedding or a derivative is not finite.
    """
    import torch

    params = task.params
    assert params.matched is not None
    yardstick = measure_yardstick(task)
    low, high = task.encoder.spec.input_range
    original = task.samples[0][None].to(torch.float32 if task.precision == "fp32" else torch.float64)
    given: dict[str, Any] = {
        "distance": params.tolerance * yardstick.median,
        "region": eqv.matching.Region(low, high),
        "precision": task.precision,
    }
    target = embeddings(task, task.samples[1][None])
    if params.matched == "gd":
        found = eqv.matching.gradient_descent(task.encoder, original, target, rate=_RATE, steps=_STEPS, **given)
    elif params.matched == "lm":
        found = eqv.matching.levenberg_marquardt(task.encoder, original, target, **given)
    else:
        found = eqv.matching.smallest_l2(task.encoder, original, target, **given)
    relative = float(found.distance[0]) / yardstick.median
    change = (found.x[0] - original[0]).double()
    group = f"match of the original to the target, {params.matched}"
    summary = {
        "match_relative": eqv.Scalar(relative, "1", "|f(matched) - f(target)| over the yardstick", group=group),
        "match_mean": eqv.Scalar(float(change.abs().mean()), "pixel", "mean |matched - original|", group=group),
        "match_l2": eqv.Scalar(float(change.norm()), "pixel", "L2 between matched and original", group=group),
        "yardstick": eqv.Scalar(
            yardstick.median, "embedding", yardstick.name, yardstick.interval, yardstick.pairs, group
        ),
    }
    faults = []
    if not bool(found.reached[0]):
        faults.append(
            f"the original was matched to {relative:.3g} of the yardstick, tolerance {params.tolerance:g} "
            f"({found.stop[0]}): take another solver for matched, or raise tolerance"
        )
    return Matched(found.x[0].to(task.samples[0]), summary, faults)
