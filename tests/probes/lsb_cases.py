"""Small encoders and images, measured by the probe lsb."""

from __future__ import annotations

import torch
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine_plugins.probes.lsb import LsbParams
from equivengine_plugins.probes.lsb.evaluation import Evaluation
from equivengine_plugins.probes.lsb.lattice import Lattice
from equivengine_plugins.probes.lsb.linear import Linear

SHAPE = (1, 2, 4)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def image(seed=0, shape=SHAPE):
    """Levels [*shape] of which about a third lie at an end of the scale."""
    levels = torch.randint(-60, 320, shape, generator=torch.Generator().manual_seed(seed))
    return levels.clamp(0, 255).float() / 255


class Map(nn.Module):
    """f(x) = g(P (x - c)), with P [n, m] drawn once and c a fixed image."""

    def __init__(self, n, c, g=lambda y: y, seed=0):
        super().__init__()
        self.P = nn.Parameter(gaussian(n, c.numel(), seed=seed))
        self.register_buffer("c", c.flatten().clone())
        self.g = g

    def forward(self, x):
        return self.g((x.flatten(1) - self.c) @ self.P.T)


def task_of(module, x, params=None, precision="fp32", seed=0, **loaded):
    encoder = eqv.Encoder(
        eqv.LoadedModel(module, preprocessing=lambda raw: raw, input_shape=tuple(x.shape), **loaded), "map"
    )
    return ProbeTask(encoder, [x], params or LsbParams(), seed=seed, precision=precision)


def parts_of(task):
    """The parts that a measurement is made of: evaluation and linear model."""
    lattice = Lattice.around(task.samples[0].flatten(), task.encoder.spec.input_range, task.params.levels)
    evaluation = Evaluation(task, lattice)
    return evaluation, Linear.of(task, evaluation)
