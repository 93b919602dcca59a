"""One oracle for every operator: its products against the dense matrix, and against each other."""

from __future__ import annotations

from typing import Any

import torch


def assert_operator_matches(
    operator: Any, dense: torch.Tensor, *, rtol: float = 1e-5, directions: int = 3, seed: int = 0
) -> None:
    """Hold an operator of shape (n, m) against its matrix.

    Checked are ``shape``, ``operator @ v`` and ``operator.T @ u`` for vectors and matrices, linearity, zero, and the
    adjoint identity <J v, u> = <v, J^T u>. Errors are relative to |J|_F |v| (Frobenius norm), which no cancellation can
    make small.

    Args:
        operator: Anything with ``shape``, ``@`` and ``.T @``.
        dense: J, [n, m], preferably float64.
        rtol: Largest relative error.
        directions: How many random vectors.
        seed: Seed of the vectors.

    Raises:
        AssertionError: Naming the first property that fails, and by how much.
    """
    n, m = dense.shape
    assert tuple(operator.shape) == (n, m), f"shape is {tuple(operator.shape)}, the matrix is {(n, m)}"
    dense = dense.to(torch.float64)
    size = float(torch.linalg.matrix_norm(dense))
    generator = torch.Generator().manual_seed(seed)
    like = operator @ torch.zeros(m, dtype=dense.dtype, device=dense.device)
    dtype, device = like.dtype, like.device
    assert not bool(like.any()), "J 0 is not 0"
    V = torch.randn(m, directions, generator=generator, dtype=torch.float64).to(device=device, dtype=dtype)
    U = torch.randn(n, directions, generator=generator, dtype=torch.float64).to(device=device, dtype=dtype)
    forward, reverse = operator @ V, operator.T @ U
    _close("J V", forward, dense @ V.to(torch.float64), size * _norm(V), rtol)
    _close("J^T U", reverse, dense.T @ U.to(torch.float64), size * _norm(U), rtol)
    _close("J v for one vector", operator @ V[:, 0], forward[:, 0], size * _norm(V), rtol)
    _close("J^T u for one vector", operator.T @ U[:, 0], reverse[:, 0], size * _norm(U), rtol)
    _close(
        "J (2 v - w)", operator @ (2 * V[:, 0] - V[:, -1]), 2 * forward[:, 0] - forward[:, -1], size * _norm(V), rtol
    )
    left = (forward.to(torch.float64) * U.to(torch.float64)).sum(0)
    right = (V.to(torch.float64) * reverse.to(torch.float64)).sum(0)
    _close("<J v, u> = <v, J^T u>", left, right, size * _norm(V) * _norm(U), rtol)


def _norm(t: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(t.to(torch.float64)))


def _close(what: str, got: torch.Tensor, expected: torch.Tensor, scale: float, rtol: float) -> None:
    assert got.shape == expected.shape, f"{what}: shape {list(got.shape)} instead of {list(expected.shape)}"
    error = float(torch.linalg.vector_norm(got.to(torch.float64) - expected.to(torch.float64))) / (scale or 1.0)
    assert error <= rtol, f"{what}: relative error {error:.2e} exceeds {rtol:.0e}"
