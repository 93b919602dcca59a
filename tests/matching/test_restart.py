"""Pairs in a local minimum begin again elsewhere."""

from __future__ import annotations

import pytest
import torch

import equivengine as eqv

matching = eqv.matching


class Ledge(torch.nn.Module):
    """Flat in its second coordinate up to 0.6, where no derivative tells that it falls beyond."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (0.1 + (x[:, 0] - 0.5) ** 2 - 2 * torch.relu(x[:, 1] - 0.6) ** 2)[:, None]


#: Originals on the ledge and beyond it, and an embedding that the ledge does not hold.
X, TARGET = torch.tensor([[0.4, 0.5], [0.4, 0.7]]), torch.zeros(2, 1, dtype=torch.float64)


def test_a_pair_on_a_ledge_is_matched_from_another_start():
    found = matching.levenberg_marquardt(Ledge(), X, TARGET, distance=1e-5)
    assert found.stop == ("reached", "reached")
    assert found.details["restarted"] == [0]
    assert float(found.x[0, 1]) > 0.6
    course = found.trace.distance[:, 0]
    course = course[~course.isnan()]
    assert bool((course.diff() <= 0).all())
    spent = found.trace.equivalents[:, 0]
    spent = spent[~spent.isnan()]
    assert bool((spent.diff() >= 0).all())
    assert int(spent[-1]) <= int(found.cost.equivalents[0])


def test_the_other_pair_neither_pays_nor_changes():
    both = matching.levenberg_marquardt(Ledge(), X, TARGET, distance=1e-5)
    alone = matching.levenberg_marquardt(Ledge(), X[1:], TARGET[1:], distance=1e-5)
    assert int(alone.cost.equivalents[0]) == int(both.cost.equivalents[1])
    assert int(alone.jacobians[0]) == int(both.jacobians[1])
    torch.testing.assert_close(alone.x[0], both.x[1], atol=0, rtol=0)


def test_a_start_that_was_asked_for_stays_the_only_one():
    found = matching.levenberg_marquardt(Ledge(), X, TARGET, distance=1e-5, start=X)
    assert found.stop[0] == "stalled"
    assert found.details["restarted"] == []


@pytest.mark.parametrize("region", [matching.Region(linf=0.1), matching.Region(l2=0.1)])
def test_other_starts_keep_to_the_region(region: matching.Region):
    found = matching.levenberg_marquardt(Ledge(), X[:1], TARGET[:1], distance=1e-5, region=region)
    assert found.stop == ("stalled",)
    assert found.details["restarted"] == [0]
    assert float((found.x - X[:1]).abs().max()) <= 0.1 * (1 + 1e-6)


def test_the_smallest_change_is_looked_for_beyond_the_ledge():
    start = torch.tensor([[0.5, 0.5]])
    found = matching.smallest_l2(Ledge(), start, TARGET[:1], distance=1e-4, precision="fp64")
    assert found.stop == ("reached",)
    expected = 0.6 + (0.0999 / 2) ** 0.5 - 0.5  # along the second coordinate alone
    assert float(torch.linalg.vector_norm(found.x - start)) == pytest.approx(expected, rel=2e-3)
