"""A small module, and ways to wrap it."""

import torch
from torch import nn

import equivengine as eqv

SHAPE = (3, 8, 8)


class Small(nn.Module):
    """A model that keeps the contract."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.drop = nn.Dropout(0.5)
            self.head = nn.Linear(4, 5)

    def embed(self, x):
        return self.head(self.drop(torch.tanh(self.norm(self.conv(x)))).mean((2, 3)))

    def forward(self, x):
        return self.embed(x)


def wrap(module, **changes):
    changes = {"preprocessing": eqv.Preprocessing(size=SHAPE[1:]), **changes}
    return eqv.Encoder(eqv.LoadedModel(module, **changes), uri="x")


def batch(count=2, seed=1):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
