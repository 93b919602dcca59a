from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equivengine.errors import NumericsError, UsageError
from equivengine.linalg import Subspace, gaussian_directions, svd

FLOAT64 = torch.float64


def gaussian(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=FLOAT64)


def orthogonal(m, seed):
    return torch.linalg.qr(gaussian(m, m, seed)).Q


def two_with_angles(angles, m, seed):
    """Two subspaces of R^m, m >= 2 k, with the given principal angles, turned and with mixed bases."""
    angles = torch.as_tensor(angles, dtype=FLOAT64)
    k = len(angles)
    Q = orthogonal(m, seed)
    first, second = Q[:k], Q[k : 2 * k]
    turned = angles.cos()[:, None] * first + angles.sin()[:, None] * second
    return Subspace(orthogonal(k, seed + 1) @ first), Subspace(orthogonal(k, seed + 2) @ turned)


# -- projections ------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 12), extra=st.integers(0, 40), decades=st.floats(0, 12), seed=st.integers(0, 1000))
def test_null_component_is_null_for_any_spectrum(n, extra, decades, seed):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -decades, n, dtype=FLOAT64)[:, None]
    J = scale * torch.randn(n, n + extra, generator=generator, dtype=FLOAT64)
    x = torch.randn(4, n + extra, generator=generator, dtype=FLOAT64)
    space = Subspace(J)
    null = space.null(x)
    assert torch.linalg.matrix_norm(J @ null.T) <= 1e-14 * n * torch.linalg.matrix_norm(J) * torch.linalg.matrix_norm(x)
    assert torch.allclose(space.normal(x) + null, x, atol=1e-12)
    assert torch.allclose(space.null(null), null, atol=1e-13 * float(x.abs().max()))
    assert space.dim == n


def test_a_rank_deficient_matrix_projects_onto_a_part_of_its_null_space():
    row = gaussian(1, 30)
    space = Subspace(torch.cat([row, 2 * row, torch.zeros(1, 30)]))
    assert space.dim == 3
    assert (space.basis.T @ space.basis - torch.eye(3)).abs().max() < 1e-14
    assert (row @ space.null(gaussian(5, 30, 1)).T).abs().max() < 1e-13


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_singular_vectors_span_what_the_matrix_spans(dtype):
    J = gaussian(6, 40).to(dtype)
    angles = Subspace(J).principal_angles(Subspace(svd(J).Vh))
    assert angles.max() < (1e-14 if dtype == torch.float64 else 1e-6)


def test_the_rows_of_the_caller_are_not_changed():
    for rows in (gaussian(4, 9), gaussian(4, 9).float(), gaussian(9, 4).T, gaussian(4, 9).requires_grad_()):
        before = rows.detach().clone()
        assert not Subspace(rows).basis.requires_grad
        assert torch.equal(rows.detach(), before)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(torch.zeros(5, 3), id="more rows than columns"),
        pytest.param(torch.full((2, 4), float("nan")), id="NaN"),
        pytest.param(torch.zeros(4), id="a vector"),
    ],
)
def test_bad_input_is_named(bad):
    with pytest.raises(NumericsError):
        Subspace(bad)


# -- random directions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "null"])
def test_random_directions_are_units_of_their_space(kind):
    J = torch.logspace(0, -9, 7, dtype=FLOAT64)[:, None] * gaussian(7, 60)
    space = Subspace(J)
    drawn = getattr(space, f"random_{kind}")(5, 0, 20)
    assert drawn.dtype == FLOAT64
    assert (torch.linalg.vector_norm(drawn, dim=1) - 1).abs().max() < 1e-15 * 4
    wrong = space.null(drawn) if kind == "normal" else drawn @ space.basis
    assert torch.linalg.vector_norm(wrong, dim=1).max() < 1e-15


def test_null_directions_stay_null_where_hardly_anything_is_left():
    space = Subspace(gaussian(399, 400))  # one direction of 400
    drawn = space.random_null(0, 0, 50)
    assert (drawn @ space.basis).abs().max() < 1e-15
    assert (drawn @ drawn.T).abs().min() > 1 - 1e-13


@pytest.mark.parametrize("kind", ["normal", "null"])
@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 2**40), cut=st.integers(0, 12), key=st.integers(0, 2**64 - 1))
def test_a_random_direction_depends_on_key_and_number_alone(kind, start, cut, key):
    draw = getattr(Subspace(gaussian(5, 33)), f"random_{kind}")
    together = draw(key, start, 12)
    apart = torch.cat([draw(key, start, cut), draw(key, start + cut, 12 - cut)])
    assert torch.allclose(together, apart, rtol=0, atol=1e-15)
    assert not torch.allclose(together, draw((key + 1) % 2**64, start, 12), atol=1e-3)


@pytest.mark.parametrize(("kind", "dim"), [("normal", 4), ("null", 6)])
def test_random_directions_are_uniform_on_the_sphere_of_their_space(kind, dim):
    # On a sphere of R^d: E d d^T = P / d, and E (a d)^4 = 3 / (d (d + 2)) for any unit a of the space (here: a column).
    space = Subspace(gaussian(4, 10))
    count = 20_000
    drawn = getattr(space, f"random_{kind}")(1, 0, count)
    P = space.basis @ space.basis.T
    P = P if kind == "normal" else torch.eye(10, dtype=FLOAT64) - P
    assert (drawn.T @ drawn / count - P / dim).abs().max() < 5 * (2 / dim**2 / count) ** 0.5
    a = P[0] / P[0].norm()
    fourth = float((drawn @ a).pow(4).mean())
    assert fourth == pytest.approx(3 / (dim * (dim + 2)), rel=0.08)
    assert drawn.mean(0).abs().max() < 5 / (dim * count) ** 0.5


def test_null_directions_are_projected_gaussian_ones():
    space = Subspace(gaussian(3, 20))
    projected = space.null(gaussian_directions(8, 2, 5, 20))
    expected = projected / torch.linalg.vector_norm(projected, dim=1, keepdim=True)
    assert torch.allclose(space.random_null(8, 2, 5), expected, rtol=0, atol=1e-14)


def test_spaces_that_hold_no_direction_say_so():
    with pytest.raises(UsageError, match="whole space"):
        Subspace(gaussian(4, 4)).random_null(0, 0, 1)
    with pytest.raises(UsageError, match="dimension 0"):
        Subspace(torch.empty(0, 4)).random_normal(0, 0, 1)


# -- angles -----------------------------------------------------------------------------------------------------------

ANGLES = [
    0.0,
    1e-15,
    1e-12,
    1e-9,
    1e-6,
    1e-3,
    0.3,
    math.pi / 4,
    1.2,
    math.pi / 2 - 1e-9,
    math.pi / 2 - 1e-12,
    math.pi / 2,
]


@pytest.mark.parametrize("m", [24, 500])
def test_angles_are_as_constructed_near_zero_and_near_a_right_angle(m):
    first, second = two_with_angles(ANGLES, m, seed=3)
    found = first.principal_angles(second)
    assert (found - torch.tensor(ANGLES, dtype=FLOAT64)).abs().max() < 4e-15
    assert found[2] == pytest.approx(1e-12, rel=5e-3)
    assert first.grassmann_distance(second) == pytest.approx(math.sqrt(sum(a**2 for a in ANGLES)), rel=1e-14)


@pytest.mark.parametrize("angle", [1e-12, 1e-8, 0.5, math.pi / 2 - 1e-8])
def test_angles_that_are_all_equal_are_as_accurate(angle):
    first, second = two_with_angles([angle] * 5, 40, seed=1)
    assert (first.principal_angles(second) - angle).abs().max() < 4e-15


@settings(max_examples=40, deadline=None)
@given(k=st.integers(1, 8), other=st.integers(1, 8), extra=st.integers(0, 20), seed=st.integers(0, 10_000))
def test_angles_agree_with_scipy_and_do_not_depend_on_order_bases_or_rotation(k, other, extra, seed):
    scipy_linalg = pytest.importorskip("scipy.linalg")
    m = max(k, other) + extra
    A, B = gaussian(k, m, seed), gaussian(other, m, seed + 1)
    found = Subspace(A).principal_angles(Subspace(B))
    assert found.shape == (min(k, other),)
    assert (found.diff() >= -1e-14).all()
    truth = torch.from_numpy(scipy_linalg.subspace_angles(A.T.numpy(), B.T.numpy()).copy()).flip(0)
    # SciPy takes some cosines where sines were due (its mask is in the opposite order): 2e-8 off where spans intersect.
    assert torch.allclose(found, truth, rtol=0, atol=1e-7)
    assert torch.allclose(Subspace(B).principal_angles(Subspace(A)), found, rtol=0, atol=1e-13)
    rotation, mixed = orthogonal(m, seed + 2), orthogonal(k, seed + 3)
    assert torch.allclose(
        Subspace(mixed @ A @ rotation).principal_angles(Subspace(B @ rotation)), found, rtol=0, atol=1e-13
    )


@settings(max_examples=40, deadline=None)
@given(dims=st.tuples(*[st.integers(1, 6)] * 3), nearness=st.floats(-9, 0), seed=st.integers(0, 10_000))
def test_the_grassmann_distance_is_a_metric_over_all_dimensions(dims, nearness, seed):
    base = gaussian(6, 14, seed)
    A, B, C = (Subspace(base[:dim] + 10**nearness * gaussian(dim, 14, seed + i + 1)) for i, dim in enumerate(dims))
    ab, bc, ac = A.grassmann_distance(B), B.grassmann_distance(C), A.grassmann_distance(C)
    assert ab == pytest.approx(B.grassmann_distance(A), abs=1e-13)
    assert ac <= ab + bc + 1e-13
    assert ab >= abs(dims[0] - dims[1]) ** 0.5 * math.pi / 2 - 1e-13


def test_equal_spans_are_at_distance_zero_and_missing_dimensions_cost_a_right_angle_each():
    A = gaussian(5, 50)
    space = Subspace(A)
    assert space.grassmann_distance(Subspace(gaussian(5, 5, 9) @ A)) < 1e-14
    part = Subspace(A[:2])
    assert space.principal_angles(part).max() < 1e-15
    assert space.grassmann_distance(part) == pytest.approx(math.sqrt(3) * math.pi / 2)
    assert space.principal_angles(Subspace(torch.empty(0, 50))).shape == (0,)


def test_subspaces_of_different_spaces_are_not_compared():
    with pytest.raises(UsageError, match="one space"):
        Subspace(gaussian(2, 5)).principal_angles(Subspace(gaussian(2, 6)))
