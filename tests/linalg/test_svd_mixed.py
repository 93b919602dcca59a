"""Mixed precision: a Krylov space of bfloat16 products, and values of float32 ones."""

from __future__ import annotations

import pytest
import torch
from svd_cases import Counting, assert_bounds_hold, assert_orthonormal

import equivengine as eqv
from equivengine.linalg import svd
from equivengine.testing import known_maps

BANK = {known.name: known for known in known_maps(96, 300, seed=4)}
SLOW = ["decay 1/sqrt(i)", "slow decay i^-0.2", "softplus sandwich, decay 1/i", "tanh network", "GELU network"]


def operators(known):
    return {"jacobian": eqv.JacobianOperator(known.f, known.x), "dense": known.jacobian.float()}


@pytest.mark.parametrize("kind", ["jacobian", "dense"])
@pytest.mark.parametrize("name", SLOW)
def test_values_are_as_accurate_as_asked_though_most_products_are_coarse(name, kind):
    known = BANK[name]
    found = svd(operators(known)[kind], 4, method="randomized", precision="mixed")
    truth = known.singular_values
    assert found.status == "ok"
    assert ((found.S - truth[:4]).abs() <= 1e-3 * truth[:4]).all()
    assert_bounds_hold(found, truth)
    assert_orthonormal(found, 1e-12, 1e-6)
    assert found.Vh.dtype == torch.float32
    counts = found.products_by_precision
    assert set(counts) == ({"bf16", "fp32", "fp64"} if kind == "jacobian" else {"bf16", "fp32"})
    assert counts["fp32"] <= 2 * (4 + 4) + 1 < counts["bf16"]
    assert found.products == sum(counts.values())


@pytest.mark.parametrize("name", ["fast decay", "decay 1/sqrt(i)"])
def test_bf16_alone_is_far_less_accurate(name):
    known = BANK[name]
    truth = known.singular_values
    mixed = svd(known.jacobian.float(), 6, method="randomized", precision="mixed")
    coarse = svd(known.jacobian.float(), 6, method="randomized", precision="bf16", tol=0.05)
    assert coarse.products_by_precision["fp64"] == 1  # which measures the roundoff
    assert set(coarse.products_by_precision) == {"bf16", "fp64"}
    assert (mixed.S - truth[:6]).abs().max() < 0.1 * (coarse.S - truth[:6]).abs().max()
    assert_bounds_hold(coarse, truth)


@pytest.mark.parametrize("name", BANK)
def test_lower_and_residual_hold_on_the_whole_bank(name):
    known = BANK[name]
    for rank in (1, 8):
        found = svd(eqv.JacobianOperator(known.f, known.x), rank, method="randomized", precision="mixed")
        truth = known.singular_values
        assert (found.lower <= truth[:rank]).all()
        assert ((found.S[:, None] - truth).abs().amin(1) <= found.residual).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["clusters of 10", "linear"])
def test_a_search_that_coarse_products_ended_in_a_cluster_goes_on(name, seed):
    """Within a cluster values hardly move, and the residual looks like roundoff of coarse products."""
    known = next(each for each in known_maps(seed=seed) if each.name == name)
    found = svd(eqv.JacobianOperator(known.f, known.x), 1, method="randomized", precision="mixed", seed=seed)
    assert_bounds_hold(found, known.singular_values)
    if found.status == "ok":
        assert (known.singular_values[0] - found.S[0]) <= 1e-3 * found.S[0]


def test_a_batch_in_mixed_precision():
    known = BANK["tanh network"]
    xs = torch.stack([known.x, known.x.flip(0), 0.2 * known.x])
    found = svd(eqv.JacobianOperator(known.f, xs, batched=True), 4, method="randomized", precision="mixed")
    assert found.status == "ok"
    for i, x in enumerate(xs):
        truth = svd(eqv.JacobianOperator(known.f, x, precision="fp64"), method="exact").S[:4]
        assert ((found.S[i] - truth).abs() <= found.error[i]).all()
        assert (found.lower[i] <= truth).all()


def test_auto_writes_the_matrix_out_in_full_precision():
    known = BANK["decay 1/sqrt(i)"]
    found = svd(eqv.JacobianOperator(known.f, known.x), 40, precision="mixed")
    assert found.method == "exact"
    assert "bf16" not in found.products_by_precision
    assert_bounds_hold(found, known.singular_values)


def test_what_has_no_coarse_products_is_refused():
    with pytest.raises(eqv.UsageError, match="no products in bf16"):
        svd(Counting(torch.randn(40, 90)), 2, method="randomized", precision="mixed")
    with pytest.raises(eqv.UsageError, match="mixed precision belongs to the randomized method"):
        svd(torch.randn(40, 90), 2, method="exact", precision="mixed")
