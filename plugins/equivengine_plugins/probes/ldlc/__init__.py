"""Local directional Lipschitz constants (paper, Eq. 7): how fast an embedding can change along four kinds of direction.

For a smooth f the constant along a unit direction d is the supremum of |J(x + a d) d| over |a| <= eps. Two lower bounds
are measured on a symmetric grid of a: the *tangent* estimate, by forward derivatives (no cancellation), and the
*secant* estimate, by difference quotients of neighbouring grid points (the largest quotient over all pairs is always
one of neighbours). Where the secant exceeds the tangent, a peak lies between nodes, and the tangent is refined there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.ldlc.along import Along, measure_along, random_directions
from equivengine_plugins.probes.ldlc.descent import descend
from equivengine_plugins.probes.ldlc.noise import noise_floors
from equivengine_plugins.probes.ldlc.parameters import LdlcParams
from equivengine_plugins.probes.ldlc.result import make_result

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

EQUIVENGINE_API = (1, 0)


class Ldlc(eqv.Probe[LdlcParams]):
    """LDLC along random, null-space, singular and matching-gradient directions, with the noise floor beside it."""

    name = "ldlc"
    version = "2"
    summary = "local directional Lipschitz constants: random, null-space, singular and gradient directions"
    arity = "pair"
    Params = LdlcParams

    def run(self, task: eqv.ProbeTask[LdlcParams]) -> eqv.ProbeResult:
        """Measure one original against one target."""
        params = task.params
        x = task.samples[0]
        exact: str = "fp64" if params.null_precision == "fp64" else task.precision
        here = {p: task.jacobian(x, precision=p) for p in (str(task.precision), exact)}
        n, m = here[exact].shape
        if n >= m:
            raise eqv.UsageError(
                "this encoder has no null space to draw from: its embedding is not smaller than its input",
                expected="n < m",
                got=f"n = {n}, m = {m}",
                hint="use the spectrum probe",
            )
        matrix = here[exact].dense()
        svd = eqv.linalg.svd(matrix, vectors=True)
        top = float(svd.S[0])
        if top == 0:
            raise eqv.NumericsError(
                "the Jacobian is exactly zero here", hint="leave this image out: nothing moves its embedding"
            )
        assert svd.Vh is not None
        assert svd.frobenius is not None
        del matrix
        space = eqv.linalg.Subspace(svd.Vh)
        vectors = svd.Vh[: params.singular_directions]
        descent = descend(task, params, top)

        measured = {
            "random": self._random(task, here[task.precision], params.directions, None),
            "null": self._random(task, here[exact], params.null_directions, space),
            "singular": self._given(task, here[task.precision], vectors, None),
            "gradient": self._given(task, here[task.precision], descent.directions, descent.points),
        }
        noise = noise_floors(task, here, exact, space)
        singular_values = svd.S.cpu().numpy()
        return make_result(task, measured, descent, singular_values, float(svd.frobenius), m, noise, exact)

    def _random(
        self,
        task: eqv.ProbeTask[LdlcParams],
        operator: eqv.JacobianOperator,
        count: int,
        space: eqv.linalg.Subspace | None,
    ) -> Along:
        """Random unit directions, in the null space if one is given; drawn and measured in chunks."""
        chunk = max(1, (64 << 20) // (8 * operator.shape[1]))
        parts = []
        for start in range(0, count, chunk):
            stop = min(start + chunk, count)
            directions = random_directions(task, operator, start, stop - start, space)
            parts.append(measure_along(operator, task.encoder.spec.input_range, directions, None, task.params))
        return Along.join(parts)

    def _given(
        self,
        task: eqv.ProbeTask[LdlcParams],
        operator: eqv.JacobianOperator,
        directions: torch.Tensor,
        points: torch.Tensor | None,
    ) -> Along:
        if len(directions) == 0:
            return Along.join([])
        return measure_along(operator, task.encoder.spec.input_range, directions, points, task.params)

    def findings(self, summary: Mapping[str, eqv.Scalar], params: LdlcParams) -> list[str]:
        """Sentences for the top of a report."""
        from equivengine_plugins.probes.ldlc.findings import findings

        return findings(summary, params)

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Distributions of the constants, and those along singular vectors, from the arrays of a result by name."""
        from equivengine_plugins.probes.ldlc.drawing import draw

        return draw(result)

    def overview(self, results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> Mapping[str, Figure]:
        """Distributions over all images, from stored arrays."""
        from equivengine_plugins.probes.ldlc.drawing import draw_overview

        return draw_overview(results)


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[LdlcParams]]]:
    """Register `Ldlc`."""
    return [Ldlc]
