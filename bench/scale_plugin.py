"""A plugin whose units cost nothing: what is left is what planning, the engine, the store and the report cost."""

from __future__ import annotations

import hashlib

import numpy as np

import equivengine as eqv

EQUIVENGINE_API = (1, 0)


class Smallest(eqv.Backend):
    """`smallest[?seed=N]`: a linear map of 4 x 4 gray images to two numbers."""

    name = "smallest"
    summary = "a linear map of 16 pixels"

    def load(self, uri: eqv.URI) -> eqv.LoadedModel:
        """Make it; the seed draws its weights."""
        import torch

        uri.allow_options(("seed",))
        module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2, bias=False))
        generator = torch.Generator().manual_seed(uri.integer("seed", 0))
        with torch.no_grad():
            module[1].weight.copy_(torch.randn(2, 16, generator=generator))
        preprocessing = eqv.Preprocessing(size=(4, 4), mode="L", mean=(0.0,), std=(1.0,))
        return eqv.LoadedModel(module=module, preprocessing=preprocessing, random_weights=True)


class Blank(eqv.Dataset):
    """`blank:COUNT`: images that differ in their first pixels, made when they are asked for."""

    name = "blank"
    summary = "4 x 4 images"

    def __init__(self, uri: eqv.URI) -> None:
        self._count = int(uri.path)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> eqv.Sample:
        if not 0 <= index < self._count:
            raise IndexError(index)
        pixels = np.zeros(16, dtype=np.uint8)
        pixels[:8] = np.frombuffer(index.to_bytes(8, "little"), dtype=np.uint8)
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        return eqv.Sample(f"{index:08}.png", digest, lambda: _picture(pixels))


def _picture(pixels: np.ndarray) -> object:
    from PIL import Image

    return Image.fromarray(pixels.reshape(4, 4))


class Empty(eqv.Probe[eqv.Params]):
    """One number, for which nothing is computed."""

    name = "empty"
    version = "1"
    summary = "nothing"

    def run(self, task: eqv.ProbeTask[eqv.Params]) -> eqv.ProbeResult:
        """A number that is a function of the input."""
        value = float(task.samples[0].sum())
        return eqv.ProbeResult({}, {"sum": eqv.Scalar(value, "1", "sum of all pixels")})


@eqv.hookimpl
def equivengine_register_backends() -> list[type[eqv.Backend]]:
    """Register `Smallest`."""
    return [Smallest]


@eqv.hookimpl
def equivengine_register_datasets() -> list[type[eqv.Dataset]]:
    """Register `Blank`."""
    return [Blank]


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe]]:
    """Register `Empty`."""
    return [Empty]
