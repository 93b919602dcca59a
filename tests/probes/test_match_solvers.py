"""The match probe by gradient descent and by smallest changes, each against what it must find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from match_cases import LINEAR, Cusp, curved, encoder_of, failed_checks, image, run, values

from equivengine_plugins.probes.match import Match

# -- gradient descent --------------------------------------------------------------------------------------------------


def descended(steps, rate, low=-np.inf, high=np.inf):
    """Eq. 4 of the paper by hand, on the linear map."""
    P, x, target = LINEAR.module.P.detach().double(), image(0).double().flatten(), image(1).double().flatten()
    path = [x]
    for _ in range(steps):
        path.append((path[-1] - rate * P.T @ (P @ (path[-1] - target))).clamp(low, high))
    return torch.stack(path), P @ target


@pytest.mark.parametrize("clamp", [False, True])
def test_gd_takes_the_steps_of_the_paper(clamp):
    rate = 0.02
    path, target = descended(7, rate, *((0, 1) if clamp else ()))
    found = run(solver="gd", rate=rate, steps=7, clamp=clamp, tolerance=1e-9)
    assert np.allclose(found.arrays["matched"].data.flatten(), path[-1], atol=1e-5)
    distances = torch.linalg.vector_norm(path @ LINEAR.module.P.detach().double().T - target, dim=1)
    assert np.allclose(found.arrays["trace_distance"].data, distances, atol=1e-4)
    assert np.allclose(found.arrays["trace_mean"].data, (path - path[0]).abs().mean(1), atol=1e-6)
    assert values(found)["steps"] == 7
    assert values(found)["products"] == 7
    assert ("in_box" in found.checks) == clamp
    assert found.status == "not_converged"
    assert "all 7 steps are spent; raise steps or rate" in found.message


def test_the_mean_loss_is_the_sum_at_two_nths_of_the_rate():
    summed = run(solver="gd", rate=0.02, steps=5, tolerance=1e-9)
    mean = run(solver="gd", rate=0.02 * 4 / 2, steps=5, tolerance=1e-9, loss="mean")
    assert np.allclose(summed.arrays["matched"].data, mean.arrays["matched"].data, atol=1e-6)
    assert mean.provenance["details"]["rate"] == pytest.approx(0.02)


def test_gd_stops_at_the_tolerance_and_with_a_cosine_only_there_too():
    near = run(solver="gd", rate=0.02, tolerance=0.1)
    assert near.status == "ok"
    course = near.arrays["trace_distance"].data
    goal = 0.1 * values(near)["yardstick"]
    assert course[-1] <= goal < course[-2]
    wanted = (1 + values(near)["cosine_matched"]) / 2
    both = run(solver="gd", rate=0.02, tolerance=0.1, cosine=wanted)
    assert both.status == "ok"
    assert values(both)["cosine_matched"] > wanted
    assert values(both)["steps"] > values(near)["steps"]
    spent = run(solver="gd", rate=0.02, tolerance=0.1, cosine=1 - 1e-12, steps=int(values(near)["steps"]) + 1)
    assert spent.status == "not_converged"
    assert "not yet above" in spent.message


def test_gd_at_too_high_a_rate_diverges_and_says_so():
    found = run(solver="gd", rate=1.0)
    assert found.status == "not_converged"
    assert "diverged, the distance grew a thousandfold" in found.message
    assert "lower rate" in found.message
    assert values(found)["distance_matched"] <= values(found)["distance_start"]
    assert len(Match().figures(found.arrays)) == 3


def test_gd_that_meets_a_gradient_that_is_not_finite_says_so():
    bad = image(3)
    bad.view(-1)[0] = 0.5
    found = run(encoder_of(Cusp()), original=bad, solver="gd")
    assert found.status == "not_converged"
    assert "the embedding is no longer finite" in found.message
    assert len(Match().figures(found.arrays)) == 3


# -- how the linear model is had --------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["lm", "minimal-l2"])
def test_products_alone_find_what_a_dense_jacobian_finds(solver):
    dense, products = (
        run(curved(), solver=solver, box=False, tolerance=1e-3, jacobian=jacobian) for jacobian in ("dense", "products")
    )
    assert dense.status == products.status == "ok"
    assert (dense.provenance["details"]["jacobian"], products.provenance["details"]["jacobian"]) == (
        "dense",
        "products",
    )
    assert values(products)["l2_matched"] == pytest.approx(values(dense)["l2_matched"], rel=0.1)
    assert not failed_checks(products)


# -- the smallest change -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tolerance", [1e-1, 2e-3])
def test_the_smallest_change_of_a_linear_map_is_found(tolerance):
    """Without a box it is P^T (P P^T + w)^-1 r, w such that the distance is the tolerance."""
    found = run(solver="minimal", box=False, tolerance=tolerance)
    assert found.status == "ok", found.message
    P, n = LINEAR.module.P.detach().double(), values(found)
    r = P @ (image(1) - image(0)).double().flatten()
    goal, low, high = tolerance * n["yardstick"], 1e-9, 1e9
    for _ in range(200):
        w = (low * high) ** 0.5
        d = P.T @ torch.linalg.solve(P @ P.T + w * torch.eye(4), r)
        low, high = (w, high) if float((P @ d - r).norm()) <= goal else (low, w)
    assert float(d.norm()) * (1 - 1e-6) <= n["l2_matched"] <= 1.02 * float(d.norm())
    assert n["optimality"] < 1e-3
    assert n["l2_matched"] < values(run())["l2_matched"] * 1.001
    assert not failed_checks(found)


def test_a_smallest_change_beyond_the_budget_is_not_converged():
    found = run(solver="minimal", l2=0.05)
    assert found.status == "not_converged"
    assert "beyond the budget l2 of 0.05; raise l2" in found.message


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2])
def test_the_smallest_largest_change_of_a_linear_map_is_found(tolerance):
    """No smaller one exists: by weak duality |d|_inf >= (u.r - goal |u|) / |P^T u|_1 for any u, maximized here."""
    found = run(solver="minimal-linf", box=False, tolerance=tolerance)
    assert found.status == "ok", found.message
    P, n = LINEAR.module.P.detach().double(), values(found)
    x, z = (torch.from_numpy(found.arrays[name].data).double().flatten() for name in ("original", "matched"))
    r = P @ (image(1).double().flatten() - x)
    goal = tolerance * n["yardstick"]

    def bound(u):
        return (u @ r - goal * u.norm()) / (P.T @ u).abs().sum()

    u = (r - P @ (z - x)).clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([u], max_iter=300, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = -bound(u)
        value.backward()
        return value

    optimiser.step(loss)
    best = float(bound(u.detach()))
    assert n["linf_matched"] >= best * (1 - 1e-6)
    assert n["linf_matched"] <= 1.05 * best
    assert n["linf_matched"] < values(run(solver="minimal", box=False, tolerance=tolerance))["linf_matched"]
    assert not failed_checks(found)
