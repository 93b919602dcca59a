"""The whole measurement of the pairs of one call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import equivengine as eqv
from equivengine_plugins.probes.match.result import Measured, make_result
from equivengine_plugins.probes.match.solving import solve
from equivengine_plugins.probes.match.targets import Pairs
from equivengine_plugins.probes.match.variants import classes, evaluate_again, is_image, look
from equivengine_plugins.probes.yardstick import measure as measure_yardstick

if TYPE_CHECKING:
    import torch

    from equivengine_plugins.probes.match.parameters import MatchParams


def match(tasks: Sequence[eqv.ProbeTask[MatchParams]]) -> list[eqv.ProbeResult]:
    """Match the pairs of tasks with equal parameters, seeds and references in one call of the solver.

    A pair of one embedding gets a result of status "failed" and takes no part.

    Raises:
        UsageError: If the parameters do not suit the encoder, or an original lies outside of the input range.
        NumericsError: If an embedding or a derivative of one of the pairs is not finite.
    """
    import torch

    params = tasks[0].params
    if params.quantize and not is_image(tasks[0].encoder.input_shape):
        raise eqv.UsageError(
            "quantize=true needs inputs that are images",
            expected="inputs [1 or 3, H, W]",
            got=list(tasks[0].encoder.input_shape),
            hint="leave quantize out",
        )
    began = time.perf_counter()
    yardstick = measure_yardstick(tasks[0])
    pairs = Pairs.of(tasks)
    eps = tasks[0].encoder.epsilon(tasks[0].precision)
    roundoff = eqv.matching.ROUNDOFFS * eps * torch.linalg.vector_norm(pairs.embeddings, dim=1)
    apart = torch.linalg.vector_norm(pairs.start - pairs.embeddings, dim=1)
    different = (apart > roundoff).tolist()
    results = [
        None if differs else _equal(float(distance), float(floor))
        for differs, distance, floor in zip(different, apart, roundoff, strict=True)
    ]
    rows = [row for row, differs in enumerate(different) if differs]
    if rows:
        chosen = pairs.take(rows)
        solved = solve(chosen, yardstick.median)
        variants = look(chosen, solved)
        measured = Measured(
            pairs=chosen,
            yardstick=yardstick,
            solved=solved,
            variants=variants,
            again=evaluate_again(chosen, variants["matched"]),
            target_classes=_target_classes(chosen),
            roundoff=roundoff[torch.tensor(rows, device=roundoff.device)],
            seconds=(time.perf_counter() - began) / len(tasks),
        )
        for place, row in enumerate(rows):
            results[row] = make_result(measured, place)
    return [result for result in results if result is not None]


def _target_classes(pairs: Pairs) -> torch.Tensor | None:
    return None if pairs.images is None else classes(pairs.tasks[0], pairs.embeddings)


def _equal(distance: float, roundoff: float) -> eqv.ProbeResult:
    return eqv.ProbeResult(
        {},
        {},
        status="failed",
        message="original and target have one embedding already: there is nothing to match\n"
        f"  expected: embeddings further apart than roundoff, {roundoff:.2g}\n"
        f"  got: a distance of {distance:.2g}\n"
        "  next: take another target, or pass --precision fp64 if they are not equal",
    )
