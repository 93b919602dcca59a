"""Matches that an 8-bit file can hold."""

from __future__ import annotations

import itertools

import pytest
import torch
from matching_cases import Bent, Linear, digits, pairs

import equivengine as eqv

matching = eqv.matching


def test_what_comes_out_is_on_the_lattice_and_survives_a_png_file_to_the_bit():
    encoder, x, target, median = digits()
    start = matching.levenberg_marquardt(encoder, x, target, distance=1e-4 * median)
    found = matching.to_lattice(encoder, x, target, start=start.x, distance=1e-6 * median)
    torch.testing.assert_close(eqv.pictures.reread(found.x), found.x, atol=0, rtol=0)
    with torch.no_grad():
        again = torch.linalg.vector_norm(encoder(found.x).double() - target, dim=1)
    torch.testing.assert_close(again, found.distance, atol=1e-4, rtol=0)
    rounded = torch.tensor(found.details["rounded"])
    with torch.no_grad():
        plain = torch.linalg.vector_norm(encoder(eqv.pictures.reread(start.x)).double() - target, dim=1)
    torch.testing.assert_close(plain, rounded.double(), atol=1e-4, rtol=1e-3)
    assert bool((found.distance <= 0.2 * rounded).all())
    assert float(found.distance.max()) <= 1e-3 * median


@pytest.mark.parametrize("seed", range(3))
def test_on_a_linear_map_no_move_of_one_or_two_coordinates_by_a_level_helps(seed: int):
    f = Linear(2, 10, seed)
    x, target = pairs(f, 1, 10, seed)
    start = matching.levenberg_marquardt(f, x, target, distance=1e-8, precision="fp64")
    found = matching.to_lattice(f, x, target, start=start.x, distance=0.0, levels=2, precision="fp64")
    grid = torch.tensor(list(itertools.product([0.0, 0.5, 1.0], repeat=10)), dtype=torch.float64)
    with torch.no_grad():
        distance = torch.linalg.vector_norm(f.double()(grid) - target, dim=1)
    change = (grid - found.x).abs() * 2
    near = (change.amax(dim=1) <= 1) & (change.sum(dim=1) <= 2)
    assert int(near.sum()) > 50
    assert float(distance.min()) - 1e-9 <= float(found.distance[0]) <= float(distance[near].min()) + 1e-9


def test_it_is_never_worse_than_rounding_and_keeps_its_budget():
    f = Bent(6, 40)
    x, target = pairs(f, 4, 40)
    region = matching.Region(linf=0.2)
    start = matching.levenberg_marquardt(f, x, target, distance=1e-6, region=region)
    found = matching.to_lattice(f, x, target, start=start.x, distance=0.0, region=region)
    assert bool((found.distance <= torch.tensor(found.details["rounded"])).all())
    assert float((found.x - x).abs().max()) <= 0.2
    levels = found.x.double() * 255
    assert float((levels - levels.round()).abs().max()) < 1e-4


def test_wrong_arguments_are_refused_with_words():
    f = Bent(6, 40)
    x, target = pairs(f, 1, 40)
    with pytest.raises(eqv.UsageError, match="needs a box"):
        matching.to_lattice(f, x, target, start=x, distance=0.0, region=matching.Region.unbounded())
    with pytest.raises(eqv.UsageError, match="levels"):
        matching.to_lattice(f, x, target, start=x, distance=0.0, levels=0)
    with pytest.raises(eqv.UsageError, match="without a level"):
        matching.to_lattice(f, x, target, start=x, distance=0.0, region=matching.Region(linf=1e-5))
