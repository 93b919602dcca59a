"""What is asked of an SVD: how many values, and how accurate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Accuracy of values, where nothing else is asked for.
VALUE_TOL = 1e-3


@dataclass
class Goal:
    """What is asked for.

    Attributes:
        rank: How many triplets; None for all values above ``tol`` s_1.
        tol: Where ``rank`` is given the largest error, relative to each value. Where not, the threshold, relative to
            s_1; values are then wanted within the smaller of ``tol`` and 1e-3 s_1.
        resolution: Relative resolution of the final precision.
        limit: Most products.
        underflow: Below this, values are no numbers of the final precision.
    """

    rank: int | None
    tol: float
    resolution: float
    limit: int
    underflow: float

    def rank_of(self, values: Tensor) -> int:
        """How many of the Ritz values [B, d] are wanted."""
        if self.rank is not None:
            return min(self.rank, values.shape[1])
        return max(1, int((values > self.tol * values[:, :1]).sum(1).max()))

    def allowed(self, values: Tensor) -> Tensor:
        """Largest estimated error of each value, roundoff not counted; [B, k]."""
        if self.rank is not None:
            wanted = self.tol * values
        else:
            wanted = min(self.tol, VALUE_TOL) * values[:, :1].expand_as(values)
        # What lies below the resolution is roundoff, and known as well as it can be.
        return torch.maximum(wanted, self.resolution * values[:, :1]).clamp_min(self.underflow)
