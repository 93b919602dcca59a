from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equivengine.errors import NumericsError
from equivengine.linalg import Subspace, svd


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 12), extra=st.integers(0, 40), decades=st.floats(0, 12), seed=st.integers(0, 1000))
def test_null_component_is_null_for_any_spectrum(n, extra, decades, seed):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -decades, n, dtype=torch.float64)[:, None]
    J = scale * torch.randn(n, n + extra, generator=generator, dtype=torch.float64)
    x = torch.randn(4, n + extra, generator=generator, dtype=torch.float64)
    space = Subspace(J)
    null = space.null(x)
    assert torch.linalg.matrix_norm(J @ null.T) <= 1e-14 * n * torch.linalg.matrix_norm(J) * torch.linalg.matrix_norm(x)
    assert torch.allclose(space.normal(x) + null, x, atol=1e-12)
    assert torch.allclose(space.null(null), null, atol=1e-13 * float(x.abs().max()))
    assert space.dim == n


def test_a_rank_deficient_matrix_projects_onto_a_part_of_its_null_space():
    row = torch.randn(1, 30, dtype=torch.float64)
    space = Subspace(torch.cat([row, 2 * row, torch.zeros(1, 30)]))
    null = space.null(torch.randn(5, 30, dtype=torch.float64))
    assert (row @ null.T).abs().max() < 1e-13


def test_the_singular_vectors_span_the_same_space_without_a_second_qr():
    J = torch.randn(6, 40, dtype=torch.float64)
    x = torch.randn(3, 40, dtype=torch.float64)
    assert torch.allclose(Subspace(J).null(x), Subspace.from_orthonormal(svd(J).Vh).null(x), atol=1e-12)


def test_rows_that_are_not_orthonormal_are_refused():
    with pytest.raises(NumericsError, match="not orthonormal"):
        Subspace.from_orthonormal(torch.ones(2, 5))


@pytest.mark.parametrize("bad", [torch.zeros(5, 3), torch.full((2, 4), float("nan")), torch.zeros(4)])
def test_bad_input_is_named(bad):
    with pytest.raises(NumericsError):
        Subspace(bad)
