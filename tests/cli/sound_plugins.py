"""A model family, a probe and an image set that are sound, as the code of their modules.

The name to register by is NAME in each of them.
"""

BACKEND = """
import equivengine as eqv

EQUIVENGINE_API = (1, 0)


def network():
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(192, 16)
            self.drop = nn.Dropout(0.5)
            self.outer = nn.Linear(16, 5)
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)

        def forward(self, x):
            return self.outer(self.drop(torch.tanh(self.inner(x.flatten(1)))))

    return Net


class Broken(eqv.Backend):
    name = "NAME"
    summary = "an encoder of 8 x 8 images"
    examples = ("NAME",)

    def load(self, uri):
        import torch

        uri.allow_options(())
        module = self.module(network()).eval()
        mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
        return eqv.LoadedModel(
            module=module,
            preprocessing=eqv.Preprocessing(size=(8, 8), mean=mean, std=std),
            random_weights=True,
            activation="tanh",
        )

    def module(self, Net):
        return Net()


@eqv.hookimpl
def equivengine_register_backends():
    return [Broken]
"""

PROBE = """
from collections.abc import Sequence

import numpy as np
from pydantic import Field

import equivengine as eqv

EQUIVENGINE_API = (1, 0)


class BrokenParams(eqv.Params):
    step: float = Field(1e-3, description="Size of the step; pixel.")


class Broken(eqv.Probe[BrokenParams]):
    name = "NAME"
    version = "1"
    summary = "the length of an embedding"
    Params = BrokenParams

    def run(self, task):
        length = float(task.encoder(task.samples[0][None].detach()).detach().norm())
        return eqv.ProbeResult({}, {"length": eqv.Scalar(length, "embedding", "length of the embedding")})

    def findings(self, summary, params):
        return [f"The embedding is {summary['length']} long."]


@eqv.hookimpl
def equivengine_register_probes():
    return [Broken]
"""

DATASET = """
import hashlib

import equivengine as eqv

EQUIVENGINE_API = (1, 0)


class Broken(eqv.Dataset):
    name = "NAME"
    summary = "flat images"
    examples = ("NAME",)

    def __init__(self, uri):
        uri.allow_options(())

    def __len__(self):
        return 3

    def __getitem__(self, index):
        level = (10, 20, 30)[index]
        digest = hashlib.sha256(str(level).encode()).hexdigest()
        return eqv.Sample(str(level), digest, lambda: self.image(level))

    def image(self, level):
        from PIL import Image

        return Image.new("L", (8, 8), level)


@eqv.hookimpl
def equivengine_register_datasets():
    return [Broken]
"""
