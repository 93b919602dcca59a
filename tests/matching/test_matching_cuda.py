"""The solvers with everything on a GPU."""

from __future__ import annotations

import pytest
import torch
from matching_cases import Bent, pairs

import equivengine as eqv

matching = eqv.matching
pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def _device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def _on_gpu() -> tuple[Bent, torch.Tensor, torch.Tensor]:
    f = Bent(6, 40)
    x, target = pairs(f, 3, 40)
    return f.cuda(), x.cuda(), target.cuda()


@pytest.mark.parametrize("jacobian", ["dense", "products"])
def test_levenberg_marquardt_reaches_what_it_reaches_on_a_cpu(jacobian: str):
    f, x, target = _on_gpu()
    found = matching.levenberg_marquardt(f, x, target, distance=1e-4, jacobian=jacobian)
    assert found.stop == ("reached",) * 3
    assert found.x.device == x.device


def test_smallest_changes_and_levels_are_found():
    f, x, target = _on_gpu()
    for solve in (matching.smallest_l2, matching.smallest_linf):
        assert solve(f, x, target, distance=1e-2).stop == ("reached",) * 3
    start = matching.levenberg_marquardt(f, x, target, distance=1e-4)
    found = matching.to_lattice(f, x, target, start=start.x, distance=0.0)
    assert bool((found.distance.cpu() <= torch.tensor(found.details["rounded"])).all())


def test_descents_and_walks_run():
    f, x, target = _on_gpu()
    descent = matching.gradient_descent(f, x, target, distance=0.5, rate=0.05, steps=2000, region=matching.Region())
    assert descent.stop == ("reached",) * 3
    walk = matching.null_walk(f, x, distance=0.05, direction=torch.randn_like(x), steps=3)
    assert int(walk.steps.min()) > 0
