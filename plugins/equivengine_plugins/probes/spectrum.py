"""The singular values of the Jacobian at an input: how many directions an encoder sees, and how unequally."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

import equivengine as eqv

if TYPE_CHECKING:
    import torch

EQUIVENGINE_API = (1, 0)


class SpectrumParams(eqv.Params):
    """Parameters of `Spectrum`."""

    vectors: int = Field(0, ge=0, le=10_000, description="Right singular vectors to store, from the top; count.")
    threshold: float | None = Field(
        None, gt=0, lt=1, description="Singular values below this fraction of s_1 count as zero; unset: the resolution."
    )
    noise_directions: int = Field(
        4, ge=0, le=1000, description="Cotangents that are repeated in float64 to measure the noise of J; count."
    )


class Spectrum(eqv.Probe[SpectrumParams]):
    """Exact: the dense Jacobian by chunked VJPs, its float64 Gram matrix, all singular values.

    Effective rank: Roy and Vetterli, EUSIPCO 2007. Stable rank: Rudelson and Vershynin, J. ACM 2007.
    """

    name = "spectrum"
    version = "2"
    summary = "singular values of the Jacobian, its ranks and its null space"
    arity = "one"
    Params = SpectrumParams

    def run(self, task: eqv.ProbeTask[SpectrumParams]) -> eqv.ProbeResult:
        """Measure one input."""
        import numpy as np
        import torch

        params = task.params
        operator = task.jacobian(task.samples[0])
        n, m = operator.shape
        matrix = operator.dense()
        wide = matrix if n <= m else matrix.T
        found = eqv.linalg.svd(wide, vectors=params.vectors > 0)
        assert found.frobenius is not None
        frobenius = float(found.frobenius)
        s = found.S.cpu().numpy()
        top = float(s[0])
        if top == 0:
            raise eqv.NumericsError(
                "the Jacobian is exactly zero here",
                expected="an input at which the encoder reacts to something",
                hint="leave this image out",
            )
        threshold = found.resolution if params.threshold is None else params.threshold * top
        rank = int((s > threshold).sum())
        energy = np.cumsum(s**2) / np.sum(s**2)
        share = s / s.sum()
        noise = self._noise(task, wide if n <= m else matrix, params.noise_directions) if n <= m else float("nan")

        arrays = {
            "singular_values": eqv.Array(s, ("index",), "embedding / pixel", "singular values of J, descending"),
            "embedding": eqv.Array(operator.value.cpu().numpy(), ("embedding",), "embedding", "f(x)"),
        }
        if params.vectors and found.Vh is not None:
            kept = found.Vh[: params.vectors].to(torch.float32).cpu().numpy()
            arrays["right_vectors"] = eqv.Array(
                kept, ("vector", "pixel"), "1", "right singular vectors, flattened in C order of the input"
            )
        values, ranks, error = "singular values", "ranks", "error"
        error_interval = None if np.isnan(noise) else (max(0.0, top - noise), top + noise)
        unit = "embedding / pixel"
        summary = {
            "s_1": eqv.Scalar(top, unit, "largest singular value, |J|_2", error_interval, group=values),
            "s_median": eqv.Scalar(float(np.median(s)), unit, "median singular value", group=values),
            "frobenius": eqv.Scalar(frobenius, unit, "|J|_F", group=values),
            "random_rms": eqv.Scalar(
                frobenius / m**0.5, unit, "|J|_F / sqrt(m): rms of random directions", group=values
            ),
            "stable_rank": eqv.Scalar((frobenius / top) ** 2, "1", "stable rank, |J|_F^2 / s_1^2", group=ranks),
            "effective_rank": eqv.Scalar(
                float(np.exp(-np.sum(share[share > 0] * np.log(share[share > 0])))),
                "1",
                "effective rank, exp(entropy of s / sum s)",
                group=ranks,
            ),
            "rank_90": eqv.Scalar(
                int(np.searchsorted(energy, 0.9) + 1), "1", "directions that hold 90% of |J|_F^2", group=ranks
            ),
            "rank": eqv.Scalar(rank, "1", "rank: singular values above the threshold", group=ranks),
            "null_dim": eqv.Scalar(m - rank, "1", "dimension of the null space, m - rank", group=ranks),
            "null_share": eqv.Scalar((m - rank) / m, "1", "share of the input space that is null", group=ranks),
            "threshold": eqv.Scalar(threshold, unit, "threshold: below it, singular values count as zero", group=error),
            "resolution": eqv.Scalar(found.resolution, unit, "resolution: below it, they are roundoff", group=error),
            "noise": eqv.Scalar(noise, unit, "|J - J_64|_F: no s_i is off by more (Weyl)", group=error),
        }
        spectral = float(np.sqrt(np.sum(s**2)))
        checks = {
            "frobenius": eqv.Check.at_most(
                abs(spectral / frobenius - 1), 1e-9, "sum of s_i^2 equals the sum of squared entries of J"
            ),
            "adjoint": eqv.Check.at_most(
                self._adjoint_gap(task, operator), 1e-5, "<J v, u> from a JVP equals <v, J^T u> from a VJP, relative"
            ),
        }
        if task.encoder.spec.normalized_output:
            tangency = torch.linalg.vector_norm(operator.vjp(operator.value[None])) / top
            checks["tangency"] = eqv.Check.at_most(float(tangency), 1e-5, "f^T J = 0 for a normalised output, over s_1")
        return eqv.ProbeResult(
            arrays, summary, checks, provenance={"method": found.method, "products": n if n <= m else m}
        )

    @staticmethod
    def _noise(task: eqv.ProbeTask[SpectrumParams], matrix: torch.Tensor, count: int) -> float:
        """sqrt(n) x rms over random unit cotangents of |(J - J_64)^T u|, an unbiased estimate of |J - J_64|_F^2."""
        import torch

        if count == 0 or task.precision == "fp64":
            return float("nan") if count == 0 else 2.2e-16 * float(torch.linalg.vector_norm(matrix))
        n = matrix.shape[0]
        u = eqv.linalg.gaussian_directions(task.stream("noise"), 0, count, n).to(matrix.device)
        u /= torch.linalg.vector_norm(u, dim=1, keepdim=True)
        exact = task.jacobian(task.samples[0], precision="fp64").vjp(u).flatten(1)
        gaps = torch.linalg.vector_norm(u @ matrix.to(torch.float64) - exact, dim=1)
        return float((n * gaps.square().mean()).sqrt())

    @staticmethod
    def _adjoint_gap(task: eqv.ProbeTask[SpectrumParams], operator: eqv.JacobianOperator) -> float:
        """|<J v, u> - <v, J^T u>| / (|J v| |u|) for one random pair."""
        import torch

        n, m = operator.shape
        v = eqv.linalg.gaussian_directions(task.stream("adjoint-v"), 0, 1, m)
        u = eqv.linalg.gaussian_directions(task.stream("adjoint-u"), 0, 1, n)
        forward = operator.jvp(v.reshape(1, *operator.x.shape)).to(torch.float64)
        reverse = operator.vjp(u).flatten(1).to(torch.float64)
        u, v = u.to(forward.device), v.to(forward.device)
        gap = (forward * u).sum() - (reverse * v).sum()
        scale = torch.linalg.vector_norm(forward) * torch.linalg.vector_norm(u)
        return float(gap.abs() / scale.clamp_min(torch.finfo(torch.float64).tiny))


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[SpectrumParams]]]:
    """Register `Spectrum`."""
    return [Spectrum]
