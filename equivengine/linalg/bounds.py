"""How far Ritz values may be from the singular values that they stand for.

A Ritz value is never above its singular value, and rises with every step. What is left of the way cannot be certified
with fewer than n products; it is estimated from how fast the way gets shorter, three ways, of which the largest counts:

- steps: a geometric series from the last two rises, r^2 / (1 - r) with r their ratio;
- half: what the next half step adds, whose products are made already;
- half step against step: the same half step as the start of a geometric series.

`SAFETY` times that was calibrated on spectra of every shape (`bench/honesty.py` repeats it): it covers the true error
of more than 99% of the values that are called converged, and is five times the true error in the median.
"""

from __future__ import annotations

import torch
from torch import Tensor

from equivengine.linalg.result import Identified

SAFETY = 5.0
#: Times what half a step added, for values that have had that half step already.
SAFETY_OF_HALF = 2.0
#: Times the residual of close values.
SAFETY_OF_MIXING = 3.0
#: A subspace counts as identified where the sine of its error is at most this.
_SAME = 0.1
#: Ratios of successive rises beyond this say no more than "slow".
_SLOWEST = 0.98
_FASTEST = 0.1


def remaining(history: list[Tensor], rise: Tensor | None, floor: Tensor, k: int) -> Tensor:
    """Estimated distance of the last Ritz values from their singular values, [B, k]; infinite before three steps.

    Args:
        history: Ritz values [B, d] after each of the last three steps, of a growing number d.
        rise: What another half step adds, [B, k]; None where its products are too coarse to tell.
        floor: Rises below this are roundoff, [B, 1].
        k: How many values, from the top.
    """
    if len(history) < 3:
        return torch.full_like(history[-1][:, :k], torch.inf)
    # Values that a smaller space had none of count as zero.
    oldest, older, newest = (
        torch.nn.functional.pad(values[:, :k], (0, max(0, k - values.shape[1]))) for values in history
    )
    last = (newest - older - floor).clamp_min(0)
    before = (older - oldest - floor).clamp_min(0)
    ratio = (last / before.clamp_min(1e-300)).nan_to_num(0.0).clamp(_FASTEST, _SLOWEST)
    found = last * ratio / (1 - ratio)
    if rise is not None:
        rise = (rise - floor).clamp_min(0)
        ratio = (rise / last.clamp_min(1e-300)).nan_to_num(0.0).clamp(_FASTEST / 2, _SLOWEST)
        found = torch.maximum(found, torch.where(rise > 0, rise / (1 - ratio), rise))
    return SAFETY * found


def mixing(values: Tensor, residual: Tensor, floor: Tensor) -> Tensor:
    """Errors of Ritz values that stand close together, [B, k]: their vectors are mixtures, and rise slowly.

    The residual rho where neighbours are nearer than rho, and rho^2 / gap where they are not (Kato and Temple).

    Args:
        values: All Ritz values [B, d].
        residual: Of the first k, [B, k].
        floor: What roundoff contributes to the residuals, [B, 1] or [B, k].
    """
    k = residual.shape[1]
    below = torch.nn.functional.pad(values, (0, 1))
    gap = (below[:, :-1] - below[:, 1:])[:, :k]
    square = (residual.square() - floor.square()).clamp_min(0)
    return SAFETY_OF_MIXING * torch.minimum(square.sqrt(), square / gap.clamp_min(1e-300))


def subspace(values: Tensor, errors: Tensor, allowed: Tensor, defects: Tensor, rank: int) -> tuple[Identified, float]:
    """Whether the leading ``rank`` vectors span a subspace of their own, and the sine of its error (Wedin, BIT 1972).

    Args:
        values: [B, > rank], or [B, rank] where there are no more.
        errors: Of the values.
        allowed: What errors were asked for: values that agree within these cannot be told apart.
        defects: |J V - U S| of the leading triplets, [B].
        rank: r.

    Returns:
        The worst of the batch, and its error, at most 1.
    """
    if values.shape[1] <= rank:
        return "identified", 0.0
    pair = slice(rank - 1, rank + 1)
    gap = values[:, rank - 1] - values[:, rank]
    sine = (defects / (gap - errors[:, rank]).clamp_min(1e-300)).clamp_max(1.0)
    worst = float(sine.max())
    blurred = gap <= errors[:, pair].sum(1)
    if bool((blurred & (gap <= allowed[:, pair].sum(1))).any()):
        return "not_identifiable", 1.0
    if bool(blurred.any()):
        return "not_converged", 1.0
    return ("identified" if worst <= _SAME else "not_converged"), worst
