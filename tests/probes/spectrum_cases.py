"""Encoders whose singular values and principal angles are known."""

from __future__ import annotations

import torch
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask


def vector_task(module, points, params, precision="fp64", seed=0):
    """A task on an encoder of vectors [m]."""
    points = [torch.as_tensor(point, dtype=torch.float32) for point in points]
    loaded = eqv.LoadedModel(module, preprocessing=lambda raw: raw, input_shape=tuple(points[0].shape))
    digests = [f"{i:064x}" for i in range(len(points))]
    return ProbeTask(eqv.Encoder(loaded, "map"), points, params, seed, precision, sample_digests=digests)


class Linear(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.w = matrix  # no parameter: those are float32

    def forward(self, x):
        return x.flatten(1) @ self.w.T.to(x.dtype)


def linear(values, m, n=None, seed=0):
    """A linear map R^m -> R^n with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    k = len(values)
    left, right = (
        torch.linalg.qr(torch.randn(size, k, generator=generator, dtype=torch.float64)).Q for size in (n or k, m)
    )
    return Linear((left * torch.as_tensor(values, dtype=torch.float64)) @ right.T)
