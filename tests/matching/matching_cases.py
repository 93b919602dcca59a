"""Maps and pairs that tests of matching share."""

from __future__ import annotations

import functools

import torch
from torch import nn

import equivengine as eqv


class Linear(nn.Module):
    """x -> A x."""

    def __init__(self, n: int, m: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.A = nn.Parameter(torch.randn(n, m, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.A.T


class Bent(nn.Module):
    """x -> tanh(A x) B: curved, smooth, its range known."""

    def __init__(self, n: int, m: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.A = nn.Parameter(torch.randn(2 * n, m, generator=generator) / m**0.5)
        self.B = nn.Parameter(torch.randn(2 * n, n, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ self.A.T) @ self.B


def inputs(count: int, m: int, seed: int) -> torch.Tensor:
    """Points of the unit box, [count, m], float32."""
    return torch.rand(count, m, generator=torch.Generator().manual_seed(seed))


def pairs(f: nn.Module, count: int, m: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Originals [count, m] and the embeddings of other points of the box, float64."""
    with torch.no_grad():
        return inputs(count, m, seed), f(inputs(count, m, seed + 1)).double()


@functools.cache
def digits() -> tuple[eqv.Encoder, torch.Tensor, torch.Tensor, float]:
    """The shipped model, two originals, two target embeddings of other classes, the median distance of such pairs."""
    encoder, images = eqv.load_encoder("digits", device="cpu"), eqv.load_images("digits")
    chosen = [images[k] for k in range(24)]
    x = torch.stack([encoder.preprocess(sample.load()) for sample in chosen])
    with torch.no_grad():
        embedded = encoder(x).double()
    other = torch.tensor([[a.label != b.label for b in chosen] for a in chosen])
    second = [next(k for k in range(4, 24) if chosen[k].label != chosen[first].label) for first in (2, 3)]
    return encoder, x[[2, 3]], embedded[second], float(torch.cdist(embedded, embedded)[other].median())
