from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equivengine.linalg import gaussian_directions


@settings(max_examples=20, deadline=None)
@given(key=st.integers(0, 2**63), cut=st.integers(0, 9), dim=st.integers(1, 50))
def test_any_chunking_gives_the_same_numbers(key, cut, dim):
    whole = gaussian_directions(key, 0, 9, dim)
    parts = [gaussian_directions(key, 0, cut, dim), gaussian_directions(key, cut, 9 - cut, dim)]
    assert torch.equal(whole, torch.cat(parts))


def test_streams_and_indices_differ_and_are_standard_normal():
    a, b = gaussian_directions(1, 0, 200, 500), gaussian_directions(2, 0, 200, 500)
    assert not torch.equal(a, b)
    everything = torch.cat([a, b]).numpy().ravel()
    assert abs(everything.mean()) < 4 / everything.size**0.5
    assert abs(everything.var() - 1) < 4 * (2 / everything.size) ** 0.5
    correlation = np.corrcoef(torch.cat([a[:5], b[:5]]).numpy()) - np.eye(10)
    assert np.abs(correlation).max() < 0.25


def test_the_numbers_are_those_of_philox_and_stay_so():
    counter = np.array([0, 0, 0, 3], dtype=np.uint64)
    expected = np.random.Generator(np.random.Philox(key=np.array([7, 0], dtype=np.uint64), counter=counter))
    assert np.array_equal(gaussian_directions(7, 3, 1, 5).numpy()[0], expected.standard_normal(5))
