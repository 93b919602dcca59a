"""Tasks of the match probe on maps whose answers are known."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine_plugins.probes.match import Match, MatchParams

SHAPE = (1, 4, 6)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def image(seed=0, shape=SHAPE):
    """Levels [*shape] of which about a sixth lie at an end of the scale."""
    levels = torch.randint(-25, 281, shape, generator=torch.Generator().manual_seed(seed))
    return levels.clamp(0, 255).float() / 255


class Map(nn.Module):
    """f(x) = g(P x), with P [n, m] drawn once."""

    def __init__(self, n=4, shape=SHAPE, g=lambda y: y, seed=0):
        super().__init__()
        self.P = nn.Parameter(gaussian(n, int(np.prod(shape)), seed=seed))
        self.g = g

    def forward(self, x):
        return self.g(x.flatten(1) @ self.P.T)


def encoder_of(module, shape=SHAPE, **loaded):
    return eqv.Encoder(eqv.LoadedModel(module, preprocessing=lambda raw: raw, input_shape=shape, **loaded), "map")


#: Its singular values are 4.1 to 6.4.
LINEAR = encoder_of(Map())
#: Takes an embedding for its largest coordinate.
CLASSIFIER = encoder_of(Map(), classify=lambda f: f, class_names=["ant", "bee", "cat", "dog"])


def curved(**loaded):
    return encoder_of(Map(g=lambda y: torch.tanh(y / 3)), **loaded)


def task_of(encoder=LINEAR, original=0, target=1, precision="fp32", references=12, transform=lambda x: x, **params):
    """A task on images drawn from seeds; ``target=None`` leaves it out."""
    shape = encoder.input_shape
    samples = [transform(image(s, shape)) if isinstance(s, int) else s for s in (original, target) if s is not None]
    return ProbeTask(
        encoder,
        samples,
        MatchParams(**params),
        seed=0,
        precision=precision,
        sample_digests=[f"{original}", f"{target}"],
        references=torch.stack([transform(image(100 + s, shape)) for s in range(references)]),
        reference_labels=["a", "b"] * (references // 2),
    )


def run(*arguments, **options):
    return Match().run(task_of(*arguments, **options))


def values(result):
    return {name: scalar.value for name, scalar in result.summary.items()}


def failed_checks(result):
    return {name: check for name, check in result.checks.items() if not check.passed}


class Cusp(nn.Module):
    """Linear, but for a cusp at x_0 = 1/2 where the gradient is not finite though the value is."""

    def __init__(self):
        super().__init__()
        self.map = Map()

    def forward(self, x):
        return self.map(x) + 1e-3 * (x.flatten(1)[:, :1] - 0.5).abs().sqrt()
