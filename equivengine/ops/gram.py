"""What orthonormalizing a block of rows takes: X X^T in float64, Cholesky's factor of it, and L^-1 X.

A block X [k, m] has few long rows: k directions in a space of m pixels. The compiled kernels cut the columns by the
block's shape alone and add up in a fixed order, so their results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from equivengine.ops import extension, record
from equivengine.ops.registration import NAMESPACE

__all__ = ["deferring_cholesky", "gram", "solve_lower"]

#: Columns that the plain formulas take at a time. Products of float32 are summed in float32 for so long.
_PANEL = 1024

_DTYPES = (torch.float32, torch.float64)


def gram(rows: Tensor, *, exact: bool = False) -> Tensor:
    """X X^T of a block of rows, accumulated in float64 by panels of columns; X is never copied in float64.

    Within a panel of at most 1024 columns, products of float32 are made and summed in float32 on the CPU: the error
    of an entry is about 1e-7 |x_i| |x_j|. CUDA devices always multiply in float64, which the tensor cores of an A100 or
    H100 do at the rate of float32.

    Args:
        rows: X, [k, m] or [*batch, k, m], float32 or float64, dense along m for speed.
        exact: Multiply in float64 on the CPU too: products of float32 are then exact, and an entry's error is about
            1e-16 |x_i| |x_j|. It takes two to three times as long.

    Returns:
        float64 [k, k] or [*batch, k, k], symmetric to the bit.

    Raises:
        TypeError: Another dtype.
    """
    if rows.dim() != 2:
        flat = rows.reshape(-1, *rows.shape[-2:])
        empty = rows.new_empty((0, rows.shape[-2], rows.shape[-2]), dtype=torch.float64)
        return torch.cat([empty, *(gram(each, exact=exact)[None] for each in flat)]).unflatten(0, rows.shape[:-2])
    return _run("gram", _gram, rows, exact)


def solve_lower(lower: Tensor, rows: Tensor, *, exact: bool = False, out: Tensor | None = None) -> Tensor:
    """Y with L Y = X by forward substitution, for a small triangle and a wide block.

    L Y differs from X by roundoff of |L| |Y|, whatever L's condition (Higham, *Accuracy and Stability of Numerical
    Algorithms*, theorem 8.5), which a product with the inverse does not give. The CPU computes in X's dtype, CUDA
    devices always in float64.

    Args:
        lower: L, [k, k], float64; what stands above the diagonal is not read.
        rows: X, [k, m], float32 or float64.
        exact: Compute in float64 on the CPU too, so that Y is rounded once. It takes twice as long.
        out: Where Y is written, dense along m; may be `rows` itself. A new tensor when None.

    Returns:
        Y, [k, m], of X's dtype.

    Raises:
        TypeError: Another dtype.
        ValueError: Shapes that do not fit.
    """
    out = rows.new_empty(rows.shape) if out is None else out
    _run("solve_lower", _solve_lower, lower, rows, exact, out)
    return out


def deferring_cholesky(matrix: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky's factor of a positive semidefinite matrix, that leaves rows alone which depend on those before them.

    A row whose pivot is not above its threshold is deferred: its diagonal entry is 1 and its column below is zero. So
    with A = X X^T, row i of L^-1 X is what the earlier rows leave of row i: of length one, or short where it was
    deferred.

    Args:
        matrix: A, [k, k], float64, its diagonal about 1; what stands above the diagonal is not read.
        thresholds: One for each pivot, [k], float64. A pivot that is NaN defers its row too.

    Returns:
        L [k, k], float64, lower triangular; and which rows are deferred, bool [k].
    """
    return _run("deferring_cholesky", _deferring_cholesky, matrix, thresholds)


def path(operator: str, rows: Tensor) -> str:
    """What a call with such rows would run: "cpu-avx2", ... or "reference"."""
    if rows.device.type != "cpu" or rows.dtype not in _DTYPES:
        return "reference"
    compiled = torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{operator}", "CPU")
    return (extension.kernel_path("cpu") or "reference") if compiled else "reference"


def _gram(rows: Tensor, exact: bool) -> Tensor:
    if rows.dtype not in _DTYPES:
        raise TypeError(f"rows: expected float32 or float64, got {rows.dtype}")
    total = rows.new_zeros((rows.shape[0],) * 2, dtype=torch.float64)
    in_float64 = exact or rows.is_cuda or rows.dtype == torch.float64
    # On a GPU few large products: one float64 panel at a time of at most 128 MB for 1024 rows.
    for panel in rows.split(16 * _PANEL if in_float64 else _PANEL, dim=1):
        if in_float64:
            wide = panel.double()
            total.addmm_(wide, wide.mT)
        else:
            total += panel @ panel.mT
    lower = total.tril(-1)
    return lower + lower.mT + total.diagonal().diag()


def _solve_lower(lower: Tensor, rows: Tensor, exact: bool, out: Tensor) -> None:
    if rows.dtype not in _DTYPES:
        raise TypeError(f"rows: expected float32 or float64, got {rows.dtype}")
    triangle = lower if exact or rows.is_cuda else lower.to(rows.dtype)
    for panel, target in zip(rows.split(16 * _PANEL, dim=1), out.split(16 * _PANEL, dim=1), strict=True):
        target.copy_(torch.linalg.solve_triangular(triangle, panel.to(triangle.dtype), upper=False))


def _deferring_cholesky(matrix: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    a = matrix.tril()
    deferred = torch.zeros(len(a), dtype=torch.bool, device=a.device)
    for j in range(len(a)):
        column = a[j + 1 :, j]
        if not a[j, j] > thresholds[j]:
            deferred[j], a[j, j] = True, 1
            column.zero_()
            continue
        a[j, j].sqrt_()
        column.div_(a[j, j])
        a[j + 1 :, j + 1 :].sub_(torch.outer(column, column).tril_())
    return a, deferred


_SCHEMAS: dict[str, tuple[str, Callable[..., Any]]] = {
    "gram": ("(Tensor rows, bool exact) -> Tensor", _gram),
    "solve_lower": ("(Tensor lower, Tensor rows, bool exact, Tensor(a!) out) -> ()", _solve_lower),
    "deferring_cholesky": ("(Tensor matrix, Tensor thresholds) -> (Tensor, Tensor)", _deferring_cholesky),
}

extension.load()
_library = torch.library.Library(NAMESPACE, "FRAGMENT")
for _name, (_schema, _reference) in _SCHEMAS.items():
    _library.define(_name + _schema)
    _library.impl(_name, _reference, "CompositeExplicitAutograd")


def _run(name: str, reference: Callable[..., Any], *args: Any) -> Any:
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    taken = path(name, tensors[-1])
    record.note(name, taken)
    return reference(*args) if taken == "reference" else getattr(getattr(torch.ops, NAMESPACE), name).default(*args)
