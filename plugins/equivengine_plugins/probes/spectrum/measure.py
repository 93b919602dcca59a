"""The singular values at one input, and what is measured beside them: |J|_F, noise, checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import equivengine as eqv

if TYPE_CHECKING:
    import numpy as np

    from equivengine_plugins.probes.spectrum.parameters import SpectrumParams

#: 97.5% quantile of the normal distribution.
_Z = 1.959964


@dataclass(frozen=True)
class Measured:
    """What is known of the Jacobian at one input.

    Attributes:
        found: Its singular triplets.
        shape: (n, m).
        embedding: f(x), [n].
        frobenius: |J|_F.
        frobenius_interval: 95% interval, where |J|_F is an estimate.
        noise: Estimate of |J - J_64|_F; None in fp64, or where it was not asked for.
        checks: Consistency checks.
    """

    found: eqv.linalg.SVDResult
    shape: tuple[int, int]
    embedding: np.ndarray
    frobenius: float
    frobenius_interval: tuple[float, float] | None
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
        NumericsError: A product was not finite, or J is zero.
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
    checks: dict[str, eqv.Check] = {}
    interval = None
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
        frobenius, interval, checks["rest"] = _estimated_frobenius(task, operator, found, stream)
    checks["adjoint"] = eqv.Check.at_most(
        _adjoint_gap(task, operator, stream), 1e-5, "<J v, u> from a JVP equals <v, J^T u> from a VJP, relative"
    )
    if task.encoder.spec.normalized_output:
        tangency = float(operator.vjp(operator.value[None]).norm()) / top
        checks["tangency"] = eqv.Check.at_most(tangency, 1e-5, "f^T J = 0 for a normalised output, over s_1")
    noise = _noise(task, operator, stream)
    operator.release()
    return Measured(found, operator.shape, operator.value.cpu().numpy(), frobenius, interval, noise, checks)


def _estimated_frobenius(
    task: eqv.ProbeTask[SpectrumParams],
    operator: eqv.JacobianOperator,
    found: eqv.linalg.SVDResult,
    stream: str,
) -> tuple[float, tuple[float, float], eqv.Check]:
    """|J|_F from the leading values and a few products with random cotangents orthogonal to their left vectors.

    |J|_F^2 = s_1^2 + ... + s_r^2 + |J^T (1 - U U^T)|_F^2, and the last term is n - r times the mean of |J^T g|^2 over
    unit vectors g of what is orthogonal to U: Hutchinson's estimator without the part of the variance that is known, as
    in Hutch++ (Meyer, Musco, Musco and Woodruff, SOSA 2021). The interval is Student's. That none of these |J^T g|
    exceeds the last value that was found is a check.
    """
    import torch

    n = operator.shape[0]
    known = float(found.S.square().sum())
    cotangents = eqv.linalg.Subspace(found.U.T).random_null(
        task.stream(f"{stream}frobenius"), 0, task.params.trace_directions
    )
    lengths = torch.linalg.vector_norm(operator.vjp(cotangents).flatten(1).to(torch.float64), dim=1)
    parts = (n - len(found.S)) * lengths.square()
    rest = float(parts.mean())
    spread = _student(len(parts) - 1) * float(parts.std()) / len(parts) ** 0.5
    ends = math.sqrt(known + max(0.0, rest - spread)), math.sqrt(known + rest + spread)
    check = eqv.Check.at_most(
        float(lengths.max()) / float(found.S[-1] + found.error[-1]),
        1.0,
        "no random direction off the found ones is faster, ratio",
    )
    return math.sqrt(known + rest), ends, check


def _student(freedom: int) -> float:
    """97.5% quantile of Student's t (Abramowitz and Stegun, 26.7.5); within 1% from three degrees of freedom on."""
    z = _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))


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
