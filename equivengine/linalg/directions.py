"""Random directions that are a function of (key, index) alone, whatever the chunking, device and order."""

from __future__ import annotations

import numpy as np
import torch


def gaussian_directions(key: int, start: int, count: int, dim: int) -> torch.Tensor:
    """Standard normal vectors number ``start`` to ``start + count - 1`` of the stream ``key``.

    Each vector has its own counter block of a Philox generator (Salmon et al., SC 2011), so a stream can be drawn in
    chunks of any size, in any order, on any machine.

    Args:
        key: Which stream; any integer in [0, 2**64).
        start: Index of the first vector.
        count: How many vectors.
        dim: Length m of a vector.

    Returns:
        float64 tensor [count, dim] on the CPU, not normalised.
    """
    out = np.empty((count, dim))
    for row in range(count):
        # The last word of the 256-bit counter is the vector's index: blocks of 2**192 numbers cannot overlap.
        counter = np.array([0, 0, 0, start + row], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=np.array([key, 0], dtype=np.uint64), counter=counter))
        out[row] = generator.standard_normal(dim)
    return torch.from_numpy(out)
