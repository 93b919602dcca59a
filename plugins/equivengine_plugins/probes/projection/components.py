"""Principal components of embeddings, and how well so many images determine them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import equivengine as eqv

if TYPE_CHECKING:
    import numpy as np

#: 95% quantile of Rayleigh's distribution of scale 1: sqrt(2 log 20).
RAYLEIGH_95 = 2.4477


@dataclass(frozen=True)
class Components:
    """Principal components of embeddings [N, n], r = min(N - 1, n) of them or fewer.

    Attributes:
        mean: Mean embedding, [n] float64.
        vectors: Unit vectors, [r, n]; the entry of largest size is positive.
        variance: Variance along each, descending, [r]; divisor N - 1.
        variance_error: Standard error of each variance over resamples, [r].
        ratio: Share of the total variance, [r].
        ratio_interval: 95% percentile bootstrap interval over images of the share along each, [r, 2].
        size: N.
    """

    mean: torch.Tensor
    vectors: torch.Tensor
    variance: np.ndarray
    variance_error: np.ndarray
    ratio: np.ndarray
    ratio_interval: np.ndarray
    size: int

    def coordinates(self, embeddings: torch.Tensor, count: int) -> torch.Tensor:
        """Of embeddings [B, n] along the first ``count`` components: [B, count]."""
        return (embeddings - self.mean) @ self.vectors[:count].T

    @property
    def degenerate(self) -> np.ndarray:
        """Whose direction is not determined: two equal variances might well lie as far apart as it and a neighbor.

        Any rotation within such a group fits these images about as well (North, Bell, Cahalan and Moeng, Mon. Weather
        Rev. 110, 1982). A sample splits two equal variances by a gap with Rayleigh's distribution, of scale
        sqrt(e_1^2 + e_2^2) where e are their standard errors: half the difference and the covariance of two axes are
        normal with equal variance. Gaps up to its 95% quantile count. [r] bool.
        """
        import numpy as np

        gap, error = -np.diff(self.variance), self.variance_error
        close = gap <= RAYLEIGH_95 * np.hypot(error[:-1], error[1:])
        return np.asarray(np.append(close, False) | np.append(False, close))

    @property
    def participation(self) -> float:
        """Participation ratio (sum of variances)^2 / sum of squares: how many equal components there would be."""
        return float(self.variance.sum() ** 2 / (self.variance**2).sum())

    @property
    def effective(self) -> float:
        """Exp of the entropy of the ratios (Roy and Vetterli, EUSIPCO 2007, for variances)."""
        import numpy as np

        p = self.ratio[self.ratio > 0]
        return float(np.exp(-(p * np.log(p)).sum()))


def principal_components(embeddings: torch.Tensor, *, seed: int, resamples: int) -> Components:
    """By a singular value decomposition of the centered embeddings, in float64.

    Args:
        embeddings: [N, n] float64.
        seed: Of the bootstrap.
        resamples: How many.

    Raises:
        UsageError: If there are fewer than three embeddings.
        NumericsError: If all embeddings are equal.
    """
    import numpy as np

    size = len(embeddings)
    if size < 3:
        raise eqv.UsageError(
            "principal components need more images",
            expected="at least 3",
            got=size,
            hint="raise --limit with basis=images; with basis=references name a larger set with --targets",
        )
    mean = embeddings.mean(dim=0)
    left, values, vectors = torch.linalg.svd(embeddings - mean, full_matrices=False)
    top = float(values[0])
    scale = float(torch.linalg.vector_norm(embeddings, dim=1).max())
    if not top > 1e-12 * scale:
        raise eqv.NumericsError(
            "all embeddings are equal, so that no direction is the first",
            expected="images of different embeddings",
            got=f"{size} images, spread {top:.2g} of {scale:.2g}",
        )
    # Beyond the rank lies roundoff, whose directions mean nothing; centering takes one away in any case.
    rank = min(int((values > 1e-10 * top).sum()), size - 1)
    values, vectors, left = values[:rank], vectors[:rank], left[:, :rank]
    rows = torch.arange(rank, device=vectors.device)
    signs = vectors[rows, vectors.abs().argmax(dim=1)].sign()
    vectors = vectors * signs[:, None]
    variance = (values.square() / (size - 1)).cpu().numpy()
    drawn = _resampled(left * values, seed, resamples)
    totals = drawn.sum(axis=1, keepdims=True)
    shares = np.divide(drawn, totals, out=np.zeros_like(drawn), where=totals > 0)
    return Components(
        mean=mean,
        vectors=vectors,
        variance=variance,
        variance_error=drawn.std(axis=0, ddof=1),
        ratio=variance / variance.sum(),
        ratio_interval=np.quantile(shares, [0.025, 0.975], axis=0).T,
        size=size,
    )


def _resampled(points: torch.Tensor, seed: int, resamples: int) -> np.ndarray:
    """Variances along fixed axes of resampled points [N, r]: [resamples, r].

    The axes stay: eigenvalues of each resample would be sorted anew, and the first of them come out too large.
    """
    import numpy as np

    size = len(points)
    generator = np.random.Generator(np.random.Philox(seed))
    weights = generator.multinomial(size, np.full(size, 1 / size), resamples).astype(np.float64)
    z = points.cpu().numpy()
    centre = weights @ z / size
    return np.maximum((weights @ z**2 - size * centre**2) / (size - 1), 0.0)
