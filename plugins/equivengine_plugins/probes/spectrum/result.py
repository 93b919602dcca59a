"""What was measured at one input as arrays and scalars of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equivengine as eqv
from equivengine_plugins.probes.effort import effort_scalars

if TYPE_CHECKING:
    import numpy as np

    from equivengine_plugins.probes.spectrum.measure import Measured
    from equivengine_plugins.probes.spectrum.parameters import SpectrumParams

UNIT = "embedding / pixel"


def arrays_of(measured: Measured, params: SpectrumParams, prefix: str = "") -> dict[str, eqv.Array]:
    """Arrays of one input; ``prefix`` leads their names and those of their dimensions."""
    import numpy as np
    import torch

    found, index = measured.found, (f"{prefix}index",)
    arrays = {
        "singular_values": eqv.Array(measured.values, index, UNIT, "singular values of J, descending"),
        "lower": eqv.Array(found.lower.cpu().numpy(), index, UNIT, "no s_i is below this but for roundoff"),
        "residual": eqv.Array(found.residual.cpu().numpy(), index, UNIT, "some singular value is within this of s_i"),
        "error": eqv.Array(found.error.cpu().numpy(), index, UNIT, "how far s_i may be off, an estimate"),
        "resolution": eqv.Array(np.array([found.resolution]), ("one",), UNIT, "singular values below are roundoff"),
        "embedding": eqv.Array(measured.embedding, ("embedding",), "embedding", "f(x)"),
    }
    if params.vectors and found.Vh is not None:
        arrays["right_vectors"] = eqv.Array(
            found.Vh[: params.vectors].to(torch.float32).cpu().numpy(),
            (f"{prefix}vector", "pixel"),
            "1",
            "right singular vectors, flattened in C order of the input",
        )
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def summary_of(measured: Measured, params: SpectrumParams, prefix: str = "", whose: str = "") -> dict[str, eqv.Scalar]:
    """Scalars of one input. What only the whole spectrum tells is left out where it is not known.

    Args:
        measured: What was measured.
        params: The probe's parameters.
        prefix: Leads names.
        whose: Leads headings.
    """
    import numpy as np

    values, ranks, error = (f"{whose}{heading}" for heading in ("singular values", "ranks", "error"))
    found, s, frobenius = measured.found, measured.values, measured.frobenius
    m, top = measured.shape[1], float(s[0])
    interval = measured.frobenius_interval

    def with_frobenius(power: int, factor: float) -> tuple[float, float] | None:
        return None if interval is None else (factor * interval[0] ** power, factor * interval[1] ** power)

    def bounds(i: int) -> tuple[float, float]:
        return float(found.lower[i]), float(found.S[i] + found.error[i])

    summary = {"s_1": eqv.Scalar(top, UNIT, "largest singular value, |J|_2", bounds(0), group=values)}
    if measured.whole:
        summary["s_median"] = eqv.Scalar(float(np.median(s)), UNIT, "median singular value", group=values)
    else:
        summary["s_last"] = eqv.Scalar(float(s[-1]), UNIT, "the last one that was found", bounds(-1), group=values)
        summary["found"] = eqv.Scalar(len(s), "1", "how many were found, from the top", group=values)
    summary |= {
        "frobenius": eqv.Scalar(frobenius, UNIT, "|J|_F", interval, group=values),
        "random_rms": eqv.Scalar(
            frobenius / m**0.5,
            UNIT,
            "|J|_F / sqrt(m): rms of random directions",
            with_frobenius(1, m**-0.5),
            group=values,
        ),
        "stable_rank": eqv.Scalar(
            (frobenius / top) ** 2, "1", "stable rank, |J|_F^2 / s_1^2", with_frobenius(2, top**-2), group=ranks
        ),
    }
    threshold = _threshold(measured, params)
    if measured.whole:
        summary |= _of_the_whole(s, ranks)
    else:
        energy = float(np.sum(s**2))
        ends = with_frobenius(-2, energy)
        summary["captured"] = eqv.Scalar(
            energy / frobenius**2,
            "1",
            "share of |J|_F^2 in the values that were found",
            None if ends is None else (min(ends), min(1.0, max(ends))),
            group=ranks,
        )
    if threshold is not None:
        rank = int((s > threshold).sum())
        summary["rank"] = eqv.Scalar(rank, "1", "rank: singular values above the threshold", group=ranks)
        if measured.whole:
            summary["null_dim"] = eqv.Scalar(m - rank, "1", "dimension of the null space, m - rank", group=ranks)
            summary["null_share"] = eqv.Scalar(
                (m - rank) / m, "1", "share of the input space that is null", group=ranks
            )
        summary["threshold"] = eqv.Scalar(
            threshold, UNIT, "threshold: below it, singular values count as zero", group=error
        )
    summary["resolution"] = eqv.Scalar(found.resolution, UNIT, "resolution: below it, they are roundoff", group=error)
    if measured.noise is not None:
        summary["noise"] = eqv.Scalar(measured.noise, UNIT, "|J - J_64|_F: no s_i is off by more (Weyl)", group=error)
    if not measured.whole:
        summary["value_error"] = eqv.Scalar(
            float((found.error / found.S.clamp_min(1e-300)).max()),
            "1",
            "largest error of a value, relative",
            group=error,
        )
        summary["subspace_error"] = eqv.Scalar(
            found.subspace_error,
            "1",
            "span of the right vectors, sine of its error (1: not identified)",
            group=error,
        )
        summary["products"] = eqv.Scalar(
            found.products, "1", f"products with J, J^T (exact way: {min(measured.shape)})", group=error
        )
    if measured.effort is not None:
        summary |= effort_scalars({"frobenius": measured.effort}, "cotangents")
    return {f"{prefix}{name}": scalar for name, scalar in summary.items()}


def _threshold(measured: Measured, params: SpectrumParams) -> float | None:
    """Below what singular values count as zero; None where the values that were found do not reach down to it."""
    top = float(measured.values[0])
    if measured.whole:
        return measured.found.resolution if params.threshold is None else params.threshold * top
    if params.rank is None and params.tol is not None:
        return max(params.tol, params.threshold or 0.0) * top
    if params.threshold is not None and measured.values[-1] <= params.threshold * top:
        return params.threshold * top
    return None


def _of_the_whole(s: np.ndarray, group: str) -> dict[str, eqv.Scalar]:
    import numpy as np

    energy = np.cumsum(s**2) / np.sum(s**2)
    share = s / s.sum()
    entropy = -np.sum(share[share > 0] * np.log(share[share > 0]))
    return {
        "effective_rank": eqv.Scalar(
            float(np.exp(entropy)), "1", "effective rank, exp(entropy of s / sum s)", group=group
        ),
        "rank_90": eqv.Scalar(
            int(np.searchsorted(energy, 0.9) + 1), "1", "directions that hold 90% of |J|_F^2", group=group
        ),
    }
