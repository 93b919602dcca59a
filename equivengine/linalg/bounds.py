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
#: Most close values that are taken together.
GROUP = 8
#: A subspace counts as identified where the sine of its error is at most this.
SAME = 0.1
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

    The residual rho itself, or rho^2 over the gap below (Kato and Temple), whichever is less. Of a value whose next
    neighbors are near, rho^2 is summed over a group of up to `GROUP` values, and the gap is the one below the group:
    within it, mixtures of vectors do not move values to first order.

    Args:
        values: Ritz values [B, d].
        residual: Of the first k of them, [B, k].
        floor: What roundoff contributes to the residuals, [B, 1] or [B, k].
    """
    k = residual.shape[1]
    square = (residual.square() - floor.square()).clamp_min(0)
    # What lies below the last Ritz value is not known.
    gaps = torch.nn.functional.pad(values[:, :-1] - values[:, 1:], (0, 1))[:, :k].clamp_min(1e-300)
    found, summed = square.sqrt(), torch.zeros_like(square)
    for width in range(min(GROUP, k)):
        # Row i: the group of the values i to i + width.
        summed = summed + torch.nn.functional.pad(square[:, width:], (0, width), value=torch.inf)
        gap = torch.nn.functional.pad(gaps[:, width:], (0, width), value=1.0)
        found = torch.minimum(found, summed / gap)
    return SAFETY_OF_MIXING * found


def subspace(
    values: Tensor, errors: Tensor, allowed: Tensor, defects: Tensor, rank: int, *, square: bool
) -> tuple[Identified, float]:
    """Whether the leading ``rank`` vectors span a subspace of their own, and the sine of its error (Wedin, BIT 1972).

    Args:
        values: [B, > rank], or [B, rank] where there are no more: the next one is then zero.
        errors: Of the values.
        allowed: What errors were asked for: values that agree within these cannot be told apart.
        defects: |J V - U S| of the leading triplets, [B].
        rank: r.
        square: Whether J is, so that all its vectors span everything.

    Returns:
        The worst of the batch, and its error, at most 1.
    """
    if values.shape[1] <= rank:
        if square:
            return "identified", 0.0
        values, errors, allowed = (
            torch.nn.functional.pad(each[:, :rank], (0, 1)) for each in (values, errors, allowed)
        )
    pair = slice(rank - 1, rank + 1)
    gap = values[:, rank - 1] - values[:, rank]
    sine = (defects / (gap - errors[:, rank]).clamp_min(1e-300)).clamp_max(1.0)
    worst = float(sine.max())
    blurred = gap <= errors[:, pair].sum(1)
    if bool((blurred & (gap <= allowed[:, pair].sum(1))).any()):
        return "not_identifiable", 1.0
    if bool(blurred.any()):
        return "not_converged", 1.0
    return ("identified" if worst <= SAME else "not_converged"), worst
