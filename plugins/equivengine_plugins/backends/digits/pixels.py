"""From 8x8 digits to the model's input; everything here happens outside the differentiated graph."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

LEVELS = 16
"""The source counts ink in 4x4 cells: its values run from 0 to 16."""

SIZE = 32
INTERPOLATION = Image.Resampling.BICUBIC


def to_uint8(counts: np.ndarray) -> np.ndarray:
    """Scale ink counts to gray levels.

    Args:
        counts: [N, 8, 8], values 0 to 16.

    Returns:
        uint8 [N, 8, 8], values 0 to 255, rounded half to even.
    """
    return np.rint(counts.astype(np.float64) * 255 / LEVELS).astype(np.uint8)


def to_pixels(image: Image.Image) -> Tensor:
    """Show one image at the model's size.

    Args:
        image: Any PIL image; color is reduced to luma. Bright strokes on a dark ground are what the model knows.

    Returns:
        float32 [1, 32, 32] in [0, 1], not yet normalized.
    """
    grey = image.convert("L").resize((SIZE, SIZE), INTERPOLATION)
    return torch.from_numpy(np.array(grey)).to(torch.float32).div(255)[None]


def stack_pixels(images: np.ndarray) -> Tensor:
    """Show many 8x8 images at the model's size: uint8 [N, 8, 8] -> float32 [N, 1, 32, 32] in [0, 1]."""
    return torch.stack([to_pixels(Image.fromarray(image)) for image in images])
