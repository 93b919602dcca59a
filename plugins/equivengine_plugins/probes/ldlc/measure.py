"""The whole measurement of one pair, or of several together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import equivengine as eqv
from equivengine_plugins.probes.ldlc.along import Along, measure_along
from equivengine_plugins.probes.ldlc.descent import Descent, descend
from equivengine_plugins.probes.ldlc.noise import noise_floors
from equivengine_plugins.probes.ldlc.parameters import RATIO
from equivengine_plugins.probes.ldlc.result import make_result
from equivengine_plugins.probes.ldlc.sampling import Place, sample_both

if TYPE_CHECKING:
    from equivengine_plugins.probes.ldlc.parameters import LdlcParams


@dataclass(frozen=True)
class Original:
    """What is known of one original before directions are drawn.

    Attributes:
        task: Its task.
        operators: The Jacobian there, by precision.
        svd: Its singular values and right vectors, in the precision of the null directions.
        space: Its row space.
        descent: Gradient descent towards the target.
    """

    task: eqv.ProbeTask[LdlcParams]
    operators: dict[str, eqv.JacobianOperator]
    svd: eqv.linalg.SVDResult
    space: eqv.linalg.Subspace
    descent: Descent


def measure(tasks: Sequence[eqv.ProbeTask[LdlcParams]]) -> list[eqv.ProbeResult]:
    """Measure pairs that share parameters and precision; random directions of all of them go through in one pass.

    Raises:
        UsageError: If the encoder has no null space.
        NumericsError: If a Jacobian is zero, or something is not finite.
    """
    task = tasks[0]
    exact = "fp64" if task.params.null_precision == "fp64" else str(task.precision)
    originals = [_original(each, exact) for each in tasks]
    drawn = sample_both(
        [Place(each.task, each.operators[task.precision], None) for each in originals],
        [Place(each.task, each.operators[exact], each.space) for each in originals],
    )
    results = []
    for original, both in zip(originals, drawn, strict=True):
        operator, vectors, descent = original.operators[task.precision], original.svd.Vh, original.descent
        assert vectors is not None
        assert original.svd.frobenius is not None
        measured = {
            "random": both.random.along,
            "null": both.null.along,
            "singular": _given(original.task, operator, vectors[: task.params.singular_directions], None),
            "gradient": _given(original.task, operator, descent.directions, descent.points),
        }
        efforts = {"random": both.random.effort, "null": both.null.effort, RATIO: both.ratio}
        results.append(
            make_result(
                original.task,
                measured,
                {kind: effort for kind, effort in efforts.items() if effort is not None},
                descent,
                original.svd.S.cpu().numpy(),
                float(original.svd.frobenius),
                operator.shape[1],
                noise_floors(original.task, original.operators, exact, original.space),
                exact,
            )
        )
    return results


def _original(task: eqv.ProbeTask[LdlcParams], exact: str) -> Original:
    here = {p: task.jacobian(task.samples[0], precision=p) for p in (str(task.precision), exact)}
    n, m = here[exact].shape
    if n >= m:
        raise eqv.UsageError(
            "this encoder has no null space to draw from: its embedding is not smaller than its input",
            expected="n < m",
            got=f"n = {n}, m = {m}",
            hint="use the spectrum probe",
        )
    svd = eqv.linalg.svd(here[exact].dense(), vectors=True)
    top = float(svd.S[0])
    if top == 0:
        raise eqv.NumericsError(
            "the Jacobian is exactly zero here", hint="leave this image out: nothing moves its embedding"
        )
    assert svd.Vh is not None
    return Original(task, here, svd, eqv.linalg.Subspace(svd.Vh), descend(task, task.params, top))


def _given(
    task: eqv.ProbeTask[LdlcParams],
    operator: eqv.JacobianOperator,
    directions: torch.Tensor,
    points: torch.Tensor | None,
) -> Along:
    if len(directions) == 0:
        return Along.join([])
    return measure_along(operator, task.encoder.spec.input_range, directions, points, task.params)
