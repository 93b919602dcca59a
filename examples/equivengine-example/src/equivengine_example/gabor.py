"""``gabor[:ORIENTATIONS][?periods=4,8]``: contrast energies of a Gabor filter bank, an encoder that nobody trained.

Each filter is a pair of a cosine and a sine wave under one Gaussian window (Daugman, JOSA A 2(7), 1985). The root of
the sum of their squared answers, averaged over 4 x 4 cells of the image, hardly depends on where within a cell an edge
lies. Learned encoders can be held against it: it knows orientation and scale and nothing else.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import equivengine as eqv

if TYPE_CHECKING:
    from torch import Tensor, nn

EQUIVENGINE_API = (1, 0)

SIDE = 48
CELLS = 4


class Gabor(eqv.Backend):
    """The filter bank on gray images of 48 x 48 pixels; an embedding has 16 numbers for each filter."""

    name = "gabor"
    summary = "contrast energies of a Gabor filter bank, untrained"
    examples = ("gabor", "gabor:8", "gabor:4?periods=4,8,16")

    def load(self, uri: eqv.URI) -> eqv.LoadedModel:
        """Build the bank.

        Raises:
            UsageError: If the number of orientations or a period is not usable.
        """
        uri.allow_options(("periods",))
        orientations = _integer(uri, "the number of orientations", uri.path or "4", 1, 64)
        periods = [_integer(uri, "a period", text, 2, 32) for text in uri.options.get("periods", "4,8").split(",")]
        return eqv.LoadedModel(
            module=filter_bank(orientations, periods),
            preprocessing=eqv.Preprocessing(size=(SIDE, SIDE), mode="L", mean=(0.5,), std=(0.5,)),
            activation="root of a sum of squares",
            license="Apache-2.0",
            details={"orientations": orientations, "periods": periods},
        )


def _integer(uri: eqv.URI, what: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise eqv.UsageError(f"{what} in {uri.text!r} is not usable", expected=f"{low} to {high}", got=repr(text))
    return int(text)


def filter_bank(orientations: int, periods: list[int]) -> nn.Module:
    """Gray images [B, 1, 48, 48] to energies [B, orientations * len(periods) * 16]."""
    import torch
    from torch import nn

    class FilterBank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Buffers, not parameters: nothing here is to be trained. They move and convert with the module.
            self.register_buffer("even", torch.stack([wave(0.0, *which) for which in bank]))
            self.register_buffer("odd", torch.stack([wave(math.pi / 2, *which) for which in bank]))

        def forward(self, x: Tensor) -> Tensor:
            even, odd = (nn.functional.conv2d(x, w, padding="same") for w in (self.even, self.odd))
            energy = (even.square() + odd.square() + 1e-6).sqrt()  # differentiable where there is no contrast, too
            return nn.functional.adaptive_avg_pool2d(energy, CELLS).flatten(1)

    def wave(phase: float, period: int, angle: float) -> Tensor:
        """One filter [1, side, side], of mean 0 and length 1."""
        reach = round(0.75 * period)
        grid = torch.arange(-reach, reach + 1, dtype=torch.float64)
        row, column = torch.meshgrid(grid, grid, indexing="ij")
        along = column * math.cos(angle) + row * math.sin(angle)
        window = torch.exp(-(row.square() + column.square()) / (2 * (0.4 * period) ** 2))
        carrier = torch.cos(2 * math.pi * along / period - phase)
        found = window * (carrier - (window * carrier).sum() / window.sum())
        size = 2 * round(0.75 * max(periods)) + 1
        padding = (size - len(grid)) // 2
        return nn.functional.pad(found / found.norm(), [padding] * 4).to(torch.float32)[None]

    angles = [math.pi * index / orientations for index in range(orientations)]
    bank = [(period, angle) for period in periods for angle in angles]
    return FilterBank().eval()


@eqv.hookimpl
def equivengine_register_backends() -> list[type[eqv.Backend]]:
    """Provide `Gabor`."""
    return [Gabor]
