"""The estimates of what is left: what they make of sequences whose limit is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivengine.linalg import bounds

FLOOR = torch.full((1, 1), 1e-15, dtype=torch.float64)


def series(limit, ratio, first, steps=3):
    """Values limit - first ratio^i after ``steps`` steps, each [1, 1], and half a step further."""
    values = [torch.tensor([[limit - first * ratio**i]], dtype=torch.float64) for i in range(steps)]
    half = limit - first * ratio ** (steps - 0.5)
    return values, half - values[-1]


def test_nothing_is_known_before_the_third_step():
    values, rise = series(1.0, 0.5, 0.1)
    for few in (values[:1], values[:2]):
        assert bounds.remaining(few, rise, FLOOR, 1).isinf().all()


@given(ratio=st.floats(1e-3, 0.95), first=st.floats(1e-6, 0.5), with_half=st.booleans())
def test_a_geometric_series_is_covered_and_not_by_much_more_than_the_margin(ratio, first, with_half):
    values, rise = series(1.0, ratio, first)
    left = first * ratio**2
    found = float(bounds.remaining(values, rise if with_half else None, FLOOR, 1))
    assert found >= 4.9 * left
    # Ratios below a tenth are not believed; the half step sees sqrt(ratio).
    assert found <= 5.1 * max(left / 0.9, 0.12 * first * (1 - ratio) * ratio, 2.1 * left)


def test_a_value_that_has_just_appeared_is_not_trusted():
    history = [torch.ones(1, 1).double(), torch.ones(1, 1).double(), torch.tensor([[1.0, 0.4]]).double()]
    found = bounds.remaining(history, None, FLOOR, 2)
    assert found[0, 0] == 0
    assert found[0, 1] > 10 * 0.4


def test_a_rise_that_grows_again_says_the_value_was_another_one():
    values = [torch.tensor([[v]], dtype=torch.float64) for v in (0.900, 0.901, 0.950)]
    assert float(bounds.remaining(values, None, FLOOR, 1)) > 1


def test_rises_below_the_floor_are_roundoff():
    values = [torch.tensor([[v]], dtype=torch.float64) for v in (1.0, 1 + 4e-7, 1 + 6e-7)]
    rise = torch.tensor([[3e-7]], dtype=torch.float64)
    assert float(bounds.remaining(values, rise, torch.tensor([[1e-6]]).double(), 1)) == 0
    assert float(bounds.remaining(values, rise, FLOOR, 1)) > 1e-6


@given(gap=st.floats(1e-6, 1.0), rho=st.floats(1e-6, 1.0))
def test_mixing_is_the_residual_or_its_square_over_the_gap(gap, rho):
    values = torch.tensor([[2.0, 2.0 - gap]], dtype=torch.float64)
    residual = torch.tensor([[rho]], dtype=torch.float64)
    found = float(bounds.mixing(values, residual, torch.zeros_like(residual)))
    distance = float(values[0, 0] - values[0, 1])
    assert found == pytest.approx(bounds.SAFETY_OF_MIXING * min(rho, rho**2 / distance), rel=1e-12)
    assert float(bounds.mixing(values, residual, residual)) == 0


def subspace(values, errors, allowed, defect, rank, *, square=True):
    rows = [torch.tensor([row], dtype=torch.float64) for row in (values, errors, allowed)]
    return bounds.subspace(*rows, torch.tensor([defect], dtype=torch.float64), rank, square=square)


def test_a_wide_gap_identifies_a_subspace_by_the_theorem_of_wedin():
    state, sine = subspace([3.0, 2.0, 1.0], [0, 0, 1e-3], [1e-3] * 3, 0.01, 2)
    assert state == "identified"
    assert sine == pytest.approx(0.01 / (1 - 1e-3))


def test_no_gap_means_no_subspace():
    assert subspace([3.0, 2.0, 2.0], [1e-6] * 3, [1e-3] * 3, 1e-6, 2) == ("not_identifiable", 1.0)
    assert subspace([3.0, 2.0, 1.999], [1e-3] * 3, [1e-3] * 3, 1e-6, 2) == ("not_identifiable", 1.0)


def test_large_errors_are_a_matter_of_convergence():
    assert subspace([3.0, 2.0, 1.9], [0.1] * 3, [1e-3] * 3, 1e-6, 2) == ("not_converged", 1.0)
    state, sine = subspace([3.0, 2.0, 1.0], [1e-3] * 3, [1e-3] * 3, 0.5, 2)
    assert state == "not_converged"
    assert sine == pytest.approx(0.5 / (1 - 1e-3))


def test_the_worst_of_a_batch_counts():
    values = torch.tensor([[3.0, 1.0], [3.0, 3.0]], dtype=torch.float64)
    small = torch.full_like(values, 1e-6)
    assert bounds.subspace(values, small, small, torch.zeros(2).double(), 1, square=True) == ("not_identifiable", 1.0)
    assert bounds.subspace(values[:1], small[:1], small[:1], torch.zeros(1).double(), 1, square=True) == (
        "identified",
        0.0,
    )


def test_all_vectors_of_a_square_matrix_span_everything():
    assert subspace([3.0, 3.0], [1.0, 1.0], [1.0, 1.0], 1.0, 2) == ("identified", 0.0)


def test_the_rows_of_a_wide_matrix_span_a_space_of_their_own_where_none_is_lost():
    assert subspace([3.0, 2.0], [1e-6] * 2, [1e-6] * 2, 1e-6, 2, square=False) == ("identified", pytest.approx(5e-7))
    assert subspace([3.0, 1e-7], [1e-6] * 2, [1e-6] * 2, 1e-6, 2, square=False) == ("not_identifiable", 1.0)


def test_close_values_are_judged_as_a_group():
    values = torch.tensor([[2.0, 2.0 - 1e-9, 1.0, 0.5]], dtype=torch.float64)
    residual = torch.full((1, 3), 1e-3, dtype=torch.float64)
    found = bounds.mixing(values, residual, torch.zeros_like(residual))[0] / bounds.SAFETY_OF_MIXING
    assert float(found[0]) == pytest.approx(2e-6, rel=1e-6)  # both residuals, over the gap below both
    assert float(found[1]) == pytest.approx(1e-6, rel=1e-6)


@given(ratio=st.floats(0.05, 0.99), perturbation=st.floats(1e-6, 1e-2), seed=st.integers(0, 1000))
def test_wedin_covers_perturbed_subspaces(ratio, perturbation, seed):
    """Rows V of a perturbed matrix: |J V^T - U S| over the gap covers the sine of their angle to the true ones."""
    generator = torch.Generator().manual_seed(seed)
    J = torch.diag(ratio ** torch.arange(6, dtype=torch.float64))
    noise = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    U, S, Vh = torch.linalg.svd(J + perturbation * (1 - ratio) * ratio * noise / torch.linalg.matrix_norm(noise, 2))
    defect = max(
        torch.linalg.matrix_norm(J @ Vh[:2].T - U[:, :2] * S[:2]),
        torch.linalg.matrix_norm(J.T @ U[:, :2] - Vh[:2].T * S[:2]),
    )
    errors = (S - J.diagonal().sort(descending=True).values).abs()[None]
    state, sine = bounds.subspace(S[None], errors, errors, 2**0.5 * defect[None], 2, square=True)
    assert state != "not_identifiable"
    true = torch.linalg.matrix_norm(Vh[:2, 2:], 2)
    assert float(true) <= sine
