"""Regions: bounds that survive rounding, and projections onto box and ball."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import equivengine as eqv
from equivengine.matching.region import project

Region = eqv.matching.Region


@given(st.integers(0, 1000), st.floats(1e-4, 0.5))
def test_a_point_within_the_bounds_stays_within_them_when_it_is_rounded_to_float32(seed: int, budget: float):
    generator = torch.Generator().manual_seed(seed)
    origin = torch.rand(3, 40, generator=generator, dtype=torch.float64)
    lower, upper = Region(linf=budget).bounds(origin, torch.float32)
    inside = lower + (upper - lower) * torch.rand(3, 40, generator=generator, dtype=torch.float64)
    for point in (inside, lower, upper):
        rounded = point.float().double()
        assert bool(((rounded >= lower) & (rounded <= upper)).all())
    assert bool(((lower >= origin - budget) & (upper <= origin + budget) & (lower >= 0) & (upper <= 1)).all())


@given(st.integers(0, 1000), st.floats(0.05, 3.0))
def test_no_random_point_of_box_and_ball_is_nearer_than_the_projection(seed: int, radius: float):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(1, 6, generator=generator, dtype=torch.float64)
    point = torch.randn(1, 6, generator=generator, dtype=torch.float64) * 2
    region = Region(l2=radius)
    found = region.project(point, centre, torch.float64)
    assert float(torch.linalg.vector_norm(found - centre)) <= radius * (1 + 1e-9)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    others = torch.rand(400, 6, generator=generator, dtype=torch.float64)
    others = others[torch.linalg.vector_norm(others - centre, dim=1) <= radius]
    # For a convex set: the angle at the projection is obtuse towards every point of the set.
    assert bool((((others - found) * (point - found)).sum(dim=1) <= 1e-6).all())


def test_a_projection_of_points_inside_moves_nothing():
    centre = torch.full((2, 5), 0.5, dtype=torch.float64)
    points = centre + 0.1
    assert torch.equal(project(points, centre, torch.zeros(2, 5), torch.ones(2, 5), 1.0), points)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        pytest.param({"low": 1.0, "high": 0.0}, "box is empty", id="reversed box"),
        pytest.param({"low": math.nan}, "box is empty", id="box of NaN"),
        pytest.param({"l2": 0.0}, "l2 budget", id="l2 of 0"),
        pytest.param({"linf": -1.0}, "linf budget", id="negative linf"),
        pytest.param({"l2": math.inf}, "l2 budget", id="infinite l2"),
    ],
)
def test_regions_that_hold_nothing_are_refused(wrong: dict[str, float], said: str):
    with pytest.raises(eqv.UsageError, match=said):
        Region(**wrong)


def test_an_original_outside_the_box_is_refused():
    with pytest.raises(eqv.UsageError, match="outside the box"):
        Region().bounds(torch.tensor([[0.5, 1.5]], dtype=torch.float64), torch.float64)
