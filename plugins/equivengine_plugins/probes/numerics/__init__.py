"""What limits the numbers: step sizes of difference quotients, roundoff of derivatives, and the radius of Eq. 5.

A difference quotient needs a step size, a forward derivative needs none; how much that matters is measured on the model
and image at hand, in float32 and float64 whatever the run's precision. The linear approximation f(x) + J d of the paper
(Eq. 5) is held against f(x + d) along random, normal-space and null-space directions of growing length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.numerics.evaluation import random_units
from equivengine_plugins.probes.numerics.parameters import NumericsParams
from equivengine_plugins.probes.numerics.radius import Linearisation
from equivengine_plugins.probes.numerics.result import Measured, make_result
from equivengine_plugins.probes.numerics.steps import measure_curve

if TYPE_CHECKING:
    import numpy as np
    import torch
    from matplotlib.figure import Figure

    from equivengine.stopping import Effort

EQUIVENGINE_API = (1, 0)

#: Precisions in which differences are taken, and those in which only JVPs exist.
DIFFERENCES = ("fp32", "fp64")
TANGENTS = ("bf16", "tf32", "tf32x3")


class Numerics(eqv.Probe[NumericsParams]):
    """Error of central differences over step sizes, error of JVPs by precision, radius of linearization."""

    name = "numerics"
    version = "1"
    summary = "step sizes of difference quotients, roundoff of derivatives, radius of the linear approximation"
    arity = "one"
    Params = NumericsParams

    def run(self, task: eqv.ProbeTask[NumericsParams]) -> eqv.ProbeResult:
        """Measure one input."""
        import numpy as np
        import torch

        params, x = task.params, task.samples[0]
        operators = {precision: task.jacobian(x, precision=precision) for precision in DIFFERENCES}
        exact = operators["fp64"]
        directions = random_units(task, "steps", params.directions, exact.shape[1])
        tangents = directions.reshape(-1, *x.shape)
        truth = exact.jvp(tangents)
        lengths = torch.linalg.vector_norm(truth, dim=1)
        if not bool(torch.isfinite(lengths).all()):
            raise eqv.NumericsError(
                "the derivative holds NaN or infinity along a random direction here",
                expected="an input at which the encoder can be differentiated",
                hint="look for a root or a norm of zero in its forward; leave this image out",
            )
        if not bool((lengths > 0).all()):
            raise eqv.NumericsError(
                "the Jacobian is exactly zero along a random direction here",
                expected="an input at which the encoder reacts to something",
                hint="leave this image out",
            )
        steps = np.geomspace(params.h_min, params.h_max, params.steps)
        curves, noise = {}, {}
        for precision, operator in operators.items():
            own = truth if operator is exact else operator.jvp(tangents).to(torch.float64)
            curves[precision] = measure_curve(task, operator, directions, own, truth, steps)
            if operator is not exact:
                noise[precision] = (torch.linalg.vector_norm(own - truth, dim=1) / lengths).cpu().numpy()
        noise |= self._reduced(task, tangents, truth, lengths)
        return make_result(task, Measured(curves, noise, *self._radius(task, exact)))

    def findings(self, summary: Mapping[str, eqv.Scalar], params: NumericsParams) -> list[str]:
        """Sentences for the top of a report."""
        from equivengine_plugins.probes.numerics.findings import findings

        return findings(summary)

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """U curves and radius curves, from the arrays of a result (or of a stored unit) by name."""
        from equivengine_plugins.probes.numerics.drawing import draw

        return draw(result)

    @staticmethod
    def _reduced(
        task: eqv.ProbeTask[NumericsParams], tangents: torch.Tensor, truth: torch.Tensor, lengths: torch.Tensor
    ) -> dict[str, np.ndarray]:
        """Relative error of JVPs with cheaper tangents around an fp32 primal, where model and device have them."""
        import torch

        found = {}
        for precision in TANGENTS:
            try:
                made = task.jacobian(task.samples[0], precision=precision).jvp(tangents)
            except (eqv.ModelError, eqv.UsageError):
                continue  # a model that cannot be traced, or a device without tensor cores
            gaps = torch.linalg.vector_norm(made.to(torch.float64) - truth, dim=1)
            found[precision] = (gaps / lengths).cpu().numpy()
        return found

    @staticmethod
    def _radius(
        task: eqv.ProbeTask[NumericsParams], exact: eqv.JacobianOperator
    ) -> tuple[dict[str, Linearisation], dict[str, Effort], float, bool, str]:
        """Linearization and effort by kind; rms of |J d|, and whether by |J|_F; a remark on what was left out."""
        import numpy as np

        from equivengine_plugins.probes.numerics.sampling import Sampling, rms

        params = task.params
        n, m = exact.shape
        low, high = task.encoder.spec.input_range
        longest = params.length_max or m**0.5 * (high - low)
        shortest = params.length_min or longest / 1e5
        if shortest >= longest:
            raise eqv.UsageError(
                "length_min must be shorter than length_max", expected=f"less than {longest:g}", got=shortest
            )
        sampling = Sampling(task, exact, np.geomspace(shortest, longest, params.lengths))
        asked = {"normal": params.normal_directions, "null": params.null_directions}
        if n >= m or not any(asked.values()):
            # Without J the scale of random directions is that of those drawn so far.
            along, effort = sampling.sample("random", params.radius_directions, None, rms)
            note = f"no null space to draw from (n = {n}, m = {m}): random directions only"
            efforts = {} if effort is None else {"radius_random": effort}
            return {"random": along}, efforts, rms(along), False, note if any(asked.values()) else ""
        found = eqv.linalg.svd(exact.dense(), vectors=True)
        assert found.Vh is not None
        assert found.frobenius is not None
        scale = float(found.frobenius) / m**0.5
        # Vectors of singular values that are roundoff belong to neither space.
        spaces = {"random": None, "normal": found.Vh[: found.rank], "null": found.Vh}
        measured, efforts = {}, {}
        for kind, count in {"random": params.radius_directions, **asked}.items():
            if count:
                basis = spaces[kind]
                space = None if basis is None else eqv.linalg.Subspace(basis)
                measured[kind], effort = sampling.sample(kind, count, space, lambda _: scale)
                if effort is not None:
                    efforts[f"radius_{kind}"] = effort
        return measured, efforts, scale, True, ""


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[NumericsParams]]]:
    """Register `Numerics`."""
    return [Numerics]
