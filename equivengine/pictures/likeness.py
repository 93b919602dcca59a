"""How alike two images look: peak signal-to-noise ratio and structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor

from equivengine.errors import UsageError
from equivengine.pictures.levels import check_same

#: Constants of Wang et al. (2004): width and standard deviation of the window (pixels), and K1, K2.
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03


def psnr(x: Tensor, y: Tensor, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio ``10 log10(peak^2 / mean((x - y)^2))`` of each pair of images.

    Args:
        x: Images [B, C, H, W].
        y: Images of the same shape.
        peak: The largest value that a pixel can have.

    Returns:
        float64 [B], dB; infinity for equal images.

    Raises:
        UsageError: If these are no batches of images of one shape, or the peak is not positive.
    """
    _check_batches(x, y)
    if not peak > 0:
        raise UsageError("the peak of a signal is not usable", expected="a positive number", got=peak)
    error = (x.detach().double() - y.detach().double()).square().flatten(1).mean(1)
    return 10.0 * torch.log10(peak * peak / error)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each pair of images in [0, 1] (Wang, Bovik, Sheikh and Simoncelli, 2004).

    Local means, variances and the covariance are weighted by a Gaussian window of `WINDOW` x `WINDOW` pixels and
    standard deviation `SIGMA`, with the population normalization of the paper. The index is averaged over all windows
    that lie within the image, then over channels; computed in float64. It is what scikit-image's
    ``structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)`` returns.

    Images with a side below `WINDOW` are compared with the largest odd window that fits, of the same standard
    deviation; such values are not comparable with those of larger images.

    Args:
        x: Images [B, C, H, W] in [0, 1] (a data range of 1 is assumed).
        y: Images of the same shape.

    Returns:
        float64 [B], in [-1, 1]; 1 for equal images only.

    Raises:
        UsageError: If these are no batches of images of one shape.
    """
    _check_batches(x, y)
    a, b = x.detach().double(), y.detach().double()
    side = min(WINDOW, *x.shape[-2:])
    weights = _gaussian(side - 1 + side % 2, a)
    mean_a, mean_b, square_a, square_b, product = (_smooth(v, weights) for v in (a, b, a * a, b * b, a * b))
    c1, c2 = K1 * K1, K2 * K2
    light = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    variances = (square_a - mean_a * mean_a) + (square_b - mean_b * mean_b)
    structure = (2 * (product - mean_a * mean_b) + c2) / (variances + c2)
    return (light * structure).flatten(1).mean(1)


def _gaussian(width: int, like: Tensor) -> Tensor:
    """Gaussian weights [width] of odd width that add up to 1."""
    offsets = torch.arange(width, dtype=like.dtype, device=like.device) - width // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA * SIGMA))
    return weights / weights.sum()


def _smooth(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over each window within the image: [B, C, H, W] -> [B, C, H - k + 1, W - k + 1]."""
    for axis in (-1, -2):  # shifted sums: float64 has no fast kernel for a convolution of one channel
        length = x.shape[axis] - len(weights) + 1
        total = x.narrow(axis, 0, length) * weights[0]
        for k in range(1, len(weights)):
            total.addcmul_(x.narrow(axis, k, length), weights[k])
        x = total
    return x


def _check_batches(x: Tensor, y: Tensor) -> None:
    check_same("x", x, "y", y)
    if x.ndim != 4:
        raise UsageError(
            "images are compared in batches", expected="shape [B, C, H, W]", got=list(x.shape), hint="pass x[None]"
        )
