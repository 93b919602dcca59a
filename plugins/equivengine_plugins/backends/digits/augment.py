"""Random distortions of training digits, drawn from one generator so that a seed fixes them all."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

ROTATION = math.radians(12)  # radians, either way
SCALE = 0.10  # relative change of size per axis
SHEAR = 0.12  # horizontal shift per unit of height
SHIFT = 0.10  # of the half width: 0.10 is 1.6 pixels of 32
ELASTIC = 0.05  # standard deviation of the displacement field, of the half width
NOISE = 0.03  # standard deviation in [0, 1] pixel units

STRENGTHS = {
    "rotation_radians": ROTATION,
    "scale": SCALE,
    "shear": SHEAR,
    "shift_of_half_width": SHIFT,
    "elastic_of_half_width": ELASTIC,
    "noise": NOISE,
}


def distort(pixels: Tensor, generator: Generator) -> Tensor:
    """Shift, rotate, scale, shear and bend each image at random, then add noise.

    Args:
        pixels: [B, 1, H, W] in [0, 1]; what is outside is background (0).
        generator: CPU generator; the only source of chance.

    Returns:
        [B, 1, H, W] in [0, 1].
    """
    batch = pixels.shape[0]

    def uniform(limit: float, *shape: int) -> Tensor:
        return (torch.rand(batch, *shape, generator=generator) * 2 - 1) * limit

    angle, shear, scale, shift = uniform(ROTATION), uniform(SHEAR), 1 + uniform(SCALE, 2), uniform(SHIFT, 2)
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # [B, 2, 2]
    stretch = torch.diag_embed(scale)
    stretch[:, 0, 1] = shear
    affine = torch.cat([rotation @ stretch, shift[:, :, None]], -1)  # [B, 2, 3]
    grid = F.affine_grid(affine, list(pixels.shape), align_corners=False)  # [B, H, W, 2]

    coarse = torch.randn(batch, 2, 4, 4, generator=generator) * ELASTIC
    bend = F.interpolate(coarse, size=pixels.shape[-2:], mode="bicubic", align_corners=True)
    moved = F.grid_sample(pixels, grid + bend.permute(0, 2, 3, 1), mode="bilinear", align_corners=False)
    noise = torch.randn(moved.shape, generator=generator) * NOISE
    return (moved + noise).clamp(0, 1)
