"""The plugins keep the contract, and measure what they say."""

import math

import numpy as np
import torch
from equivengine_example.everyday import CHANGES, Everyday, tangents
from equivengine_example.gabor import Gabor, filter_bank
from equivengine_example.gratings import Gratings, pixels

from equivengine.testing import DatasetContract, EncoderContract, ProbeContract


class TestGabor(EncoderContract):
    backend = Gabor
    uri = "gabor:8"


class TestEveryday(ProbeContract):
    probe = Everyday


class TestGratings(DatasetContract):
    dataset = Gratings


def test_the_filter_of_a_gratings_orientation_answers_most():
    orientations = 6
    bank = filter_bank(orientations, [8])
    for index in range(orientations):
        grating = torch.from_numpy(pixels(180 * index / orientations, 8)[:48, :48]).float() / 127 - 1
        energies = bank(grating[None, None]).view(orientations, -1).mean(1)
        assert int(energies.argmax()) == index


def test_tangents_are_what_a_moved_image_differs_by():
    row, column = np.mgrid[0:40, 0:40] / 40.0

    def scene(shift: float, turn: float) -> torch.Tensor:
        u, v = column - shift - 0.5, row - 0.5
        u, v = u * math.cos(turn) + v * math.sin(turn), v * math.cos(turn) - u * math.sin(turn)
        return torch.from_numpy(np.exp(-((u - 0.1) ** 2 + 2 * v**2) / 0.05))[None]

    moved = dict(zip(CHANGES, tangents(scene(0, 0)), strict=True))
    for name, small in (("right", scene(1e-4, 0)), ("turned", scene(0, 1e-4))):
        difference = (small - scene(0, 0)).flatten()
        cosine = torch.nn.functional.cosine_similarity(difference, moved[name].flatten(), dim=0)
        assert float(cosine) > 0.99
