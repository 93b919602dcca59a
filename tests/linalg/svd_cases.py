"""Matrices with given singular values, and operators that count or spoil products."""

from __future__ import annotations

import torch

from equivengine.testing.maps import orthonormal


def matrix(n: int, m: int, values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """U diag(values) V^T, [n, m] with n <= m, float64."""
    return (orthonormal(n, n, 2 * seed) * values) @ orthonormal(m, n, 2 * seed + 1).T


class Counting:
    """jvp and vjp of a dense matrix, which count directions.

    `spoil` maps the number of the call, from 1, and the product to what is returned.
    """

    def __init__(self, J, transpose=None, spoil=lambda call, product: product):
        self.J, self.transpose, self.spoil = J, J if transpose is None else transpose, spoil
        self.shape, self.dtype = tuple(J.shape), J.dtype
        self.pushed = self.pulled = self.calls = 0

    def jvp(self, v):
        assert v.dim() == 2
        self.pushed += len(v)
        self.calls += 1
        return self.spoil(self.calls, v @ self.J.T)

    def vjp(self, u):
        assert u.dim() == 2
        self.pulled += len(u)
        self.calls += 1
        return self.spoil(self.calls, u @ self.transpose)

    @property
    def total(self):
        return self.pushed + self.pulled


def assert_orthonormal(found, atol_u, atol_v):
    """Columns of U and rows of Vh, of one matrix or a batch."""
    r = found.S.shape[-1]
    eye = torch.eye(r, dtype=torch.float64)
    U, Vh = found.U.double(), found.Vh.double()
    assert (U.mT @ U - eye).abs().max() <= atol_u
    assert (Vh @ Vh.mT - eye).abs().max() <= atol_v


def assert_bounds_hold(found, truth):
    """`lower` and `residual`, promised always, and `error` where the status is ok; `truth` is the whole spectrum."""
    r = len(found.S)
    assert (found.lower <= truth[:r]).all()
    assert ((found.S[:, None] - truth).abs().amin(1) <= found.residual).all()
    if found.status == "ok":
        assert ((found.S - truth[:r]).abs() <= found.error).all()
