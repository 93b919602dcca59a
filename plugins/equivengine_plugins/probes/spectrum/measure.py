"""The singular values at one input, and what is measured beside them: |J|_F, noise, checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import equivengine as eqv
from equivengine_plugins.probes.spectrum.trace import estimated_frobenius

if TYPE_CHECKING:
    import numpy as np

    from equivengine.stopping import Effort
    from equivengine_plugins.probes.spectrum.parameters import SpectrumParams


@dataclass(frozen=True)
class Measured:
    """What is known of the Jacobian at one input.

    Attributes:
        found: Its singular triplets.
        shape: (n, m).
        embedding: f(x), [n].
        frobenius: |J|_F.
        frobenius_interval: 95% interval, where |J|_F is an estimate.
        effort: How well |J|_F is known; None without ``trace_tolerance``, or where nothing had to be estimated.
        noise: Estimate of |J - J_64|_F; None in fp64, or where it was not asked for.
        checks: Consistency checks.
    """

    found: eqv.linalg.SVDResult
    shape: tuple[int, int]
    embedding: np.ndarray
    frobenius: float
    frobenius_interval: tuple[float, float] | None
    effort: Effort | None
    noise: float | None
    checks: dict[str, eqv.Check]

    @property
    def values(self) -> np.ndarray:
        """Singular values that were found, [r], float64, descending."""
        return self.found.S.cpu().numpy()

    @property
    def whole(self) -> bool:
        """Whether these are all singular values."""
        return len(self.found.S) == min(self.shape)

    def provenance(self) -> dict[str, object]:
        """How the values were found; JSON types."""
        return {
            "method": self.found.method,
            "reason": self.found.message,
            "products": self.found.products,
            "products_by_precision": dict(self.found.products_by_precision),
            "subspace": self.found.subspace,
            "noise_at_leading_vectors": self.found.noise,
            **({} if self.effort is None else {"effort": {"frobenius": self.effort.to_json()}}),
        }


def measure(
    task: eqv.ProbeTask[SpectrumParams], operator: eqv.JacobianOperator, *, vectors: bool, stream: str = ""
) -> Measured:
    """Find the singular values that the task asks for.

    Args:
        task: The task.
        operator: The Jacobian at the input.
        vectors: Whether right singular vectors are needed.
        stream: Prefix of the names of random streams.

    Raises:
        NumericsError: A product was not finite, J is zero, or all of it underflows.
        UsageError: rank or tol is out of range for this Jacobian.
    """
    params = task.params
    found = eqv.linalg.svd(
        operator,
        params.rank,
        params.tol,
        method=params.method,
        precision="mixed" if params.mixed else None,
        seed=task.stream(f"{stream}svd"),
        vectors=vectors,
        noise_directions=min(1, params.noise_directions),
    ).require()
    top = float(found.S[0])
    if top == 0:
        raise eqv.NumericsError(
            "the Jacobian is exactly zero here",
            expected="an input at which the encoder reacts to something",
            hint="leave this image out",
        )
    if top <= found.resolution:
        raise eqv.NumericsError(
            f"the whole Jacobian underflows in {task.precision} here",
            expected=f"a largest singular value above {found.resolution:.2g}",
            got=f"{top:.2g}",
            hint="take --precision fp64, or leave this image out",
        )
    checks: dict[str, eqv.Check] = {}
    interval, effort = None, None
    length = float(found.S.square().sum().sqrt())
    whole = len(found.S) == min(operator.shape)
    if found.frobenius is not None:
        frobenius = float(found.frobenius)
        if whole:
            checks["frobenius"] = eqv.Check.at_most(
                abs(length / frobenius - 1), 1e-9, "sum of s_i^2 equals the sum of squared entries of J"
            )
    elif whole:
        frobenius = length
    else:
        estimated = estimated_frobenius(task, operator, found, stream)
        frobenius, interval, effort = estimated.value, estimated.interval, estimated.effort
        checks["rest"] = estimated.check
    checks["adjoint"] = eqv.Check.at_most(
        _adjoint_gap(task, operator, stream), 1e-5, "<J v, u> from a JVP equals <v, J^T u> from a VJP, relative"
    )
    if task.encoder.spec.normalized_output:
        tangency = float(operator.vjp(operator.value[None]).norm()) / top
        checks["tangency"] = eqv.Check.at_most(tangency, 1e-5, "f^T J = 0 for a normalised output, over s_1")
    noise = _noise(task, operator, stream)
    operator.release()
    value = operator.value.cpu().numpy()
    return Measured(found, operator.shape, value, frobenius, interval, effort, noise, checks)


def _noise(task: eqv.ProbeTask[SpectrumParams], operator: eqv.JacobianOperator, stream: str) -> float | None:
    """sqrt(n) x rms over random unit cotangents of |(J - J_64)^T u|, an unbiased estimate of |J - J_64|_F^2."""
    import torch

    count = task.params.noise_directions
    if count == 0 or operator.precision == "fp64":
        return None
    n = operator.shape[0]
    u = eqv.linalg.gaussian_directions(task.stream(f"{stream}noise"), 0, count, n, device=operator.x.device)
    u /= torch.linalg.vector_norm(u, dim=1, keepdim=True)
    # Both are given the same u: rounding it is no error of J.
    u = u.to(operator.dtype)
    exact = operator.in_precision("fp64")
    gaps = operator.vjp(u).flatten(1).to(torch.float64) - exact.vjp(u).flatten(1)
    return float((n * torch.linalg.vector_norm(gaps, dim=1).square().mean()).sqrt())


def _adjoint_gap(task: eqv.ProbeTask[SpectrumParams], operator: eqv.JacobianOperator, stream: str) -> float:
    """|<J v, u> - <v, J^T u>| / (|J v| |u|) for one random pair."""
    import torch

    n, m = operator.shape
    v = eqv.linalg.gaussian_directions(task.stream(f"{stream}adjoint-v"), 0, 1, m, device=operator.x.device)
    u = eqv.linalg.gaussian_directions(task.stream(f"{stream}adjoint-u"), 0, 1, n, device=operator.x.device)
    forward = operator.jvp(v.reshape(1, *operator.x.shape)).to(torch.float64)
    reverse = operator.vjp(u).flatten(1).to(torch.float64)
    gap = (forward * u).sum() - (reverse * v).sum()
    scale = torch.linalg.vector_norm(forward) * torch.linalg.vector_norm(u)
    return float(gap.abs() / scale.clamp_min(torch.finfo(torch.float64).tiny))
