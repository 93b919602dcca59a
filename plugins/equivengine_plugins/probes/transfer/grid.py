"""Images side by side in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import equivengine as eqv

if TYPE_CHECKING:
    import torch

#: Pixels of white between images.
GAP = 4


def grid(columns: Sequence[torch.Tensor], description: str) -> eqv.Picture:
    """Columns of images, one row for each pair.

    Args:
        columns: Each [P, 1 or 3, H, W] in [0, 1].
        description: Of the picture.
    """
    import torch

    images = torch.stack([column.float() for column in columns], dim=1)  # [P, columns, C, H, W]
    height, width = images.shape[-2:]
    rows, count, channels = images.shape[:3]
    canvas = images.new_ones(channels, rows * (height + GAP) - GAP, count * (width + GAP) - GAP)
    for row in range(rows):
        for column in range(count):
            top, left = row * (height + GAP), column * (width + GAP)
            canvas[:, top : top + height, left : left + width] = images[row, column]
    return eqv.pictures.picture(canvas, description)
