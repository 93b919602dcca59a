"""|J|_F where J was not written out, from products with random cotangents: so many, or until it is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import equivengine as eqv
from equivengine.statistics import LEVEL, Estimate
from equivengine.stopping import Effort, blocks

if TYPE_CHECKING:
    from equivengine_plugins.probes.spectrum.parameters import SpectrumParams

#: Cotangents before the first look: the mean of fewer squares is far from normal.
FIRST = 16


@dataclass(frozen=True)
class Estimated:
    """An estimate of |J|_F.

    Attributes:
        value: |J|_F.
        interval: 95% interval.
        effort: How well it is known; None without a tolerance.
        check: That nothing faster than the values that were found turned up.
    """

    value: float
    interval: tuple[float, float]
    effort: Effort | None
    check: eqv.Check


def estimated_frobenius(
    task: eqv.ProbeTask[SpectrumParams],
    operator: eqv.JacobianOperator,
    found: eqv.linalg.SVDResult,
    stream: str,
) -> Estimated:
    """|J|_F from the leading values and a few products with random cotangents orthogonal to their left vectors.

    |J|_F^2 = s_1^2 + ... + s_r^2 + |J^T (1 - U U^T)|_F^2, and the last term is n - r times the mean of |J^T g|^2 over
    unit vectors g of what is orthogonal to U: Hutchinson's estimator without the part of the variance that is known, as
    in Hutch++ (Meyer, Musco, Musco and Woodruff, SOSA 2021). The interval is Student's; with a tolerance each look has
    its equal share of the 5% (Bonferroni), so that all looks hold together as far as Student's intervals do. That none
    of these |J^T g| exceeds the last value that was found is a check.
    """
    import torch

    params = task.params
    known = float(found.S.square().sum())
    dimension = operator.shape[0] - len(found.S)
    space, key = eqv.linalg.Subspace(found.U.T), task.stream(f"{stream}frobenius")
    cut = blocks(params.trace_directions, FIRST)
    level = LEVEL if params.trace_tolerance is None else 1 - (1 - LEVEL) / len(cut)
    lengths = torch.empty(0, dtype=torch.float64, device=operator.x.device)
    effort = None
    for start, stop in cut:
        pulled = operator.vjp(space.random_null(key, start, stop - start)).flatten(1)
        lengths = torch.cat([lengths, torch.linalg.vector_norm(pulled.to(torch.float64), dim=1)])
        parts = dimension * lengths.square()
        rest = float(parts.mean())
        spread = student(len(parts) - 1, level) * float(parts.std()) / len(parts) ** 0.5
        ends = math.sqrt(known + max(0.0, rest - spread)), math.sqrt(known + rest + spread)
        value = math.sqrt(known + rest)
        if params.trace_tolerance is not None:
            effort = Effort(Estimate(value, *ends, len(parts)), params.trace_tolerance, params.trace_directions)
            if effort.finished:
                break
    check = eqv.Check.at_most(
        float(lengths.max()) / float(found.S[-1] + found.error[-1]),
        1.0,
        "no random direction off the found ones is faster, ratio",
    )
    return Estimated(value, ends, effort, check)


def student(freedom: int, level: float = LEVEL) -> float:
    """Half-width of Student's two-sided interval (Abramowitz and Stegun, 26.7.5), in standard errors.

    Within 1% from three degrees of freedom on at 95%, from fifteen on up to 99.9%.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))
