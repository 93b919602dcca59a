"""The whole spectrum from J itself: one copy of J in its own precision, and nothing else of its size.

float32: the Gram matrix J J^T is accumulated in float64 by panels of columns, and s = sqrt(eigenvalues). Squaring the
condition number costs nothing that float32 entries had. float64: J = L Q by `orthonormalise`, and the SVD of the
triangle, which resolves values down to 2e-14 s_1. Right singular vectors are written over J, by panels of columns.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from equivengine.errors import NumericsError
from equivengine.linalg import bounds
from equivengine.linalg.directions import gaussian_directions
from equivengine.linalg.goal import Goal
from equivengine.linalg.krylov import split_off
from equivengine.linalg.orthonormal import orthonormalise
from equivengine.linalg.products import NotFiniteError, Products
from equivengine.linalg.result import SVDResult
from equivengine.ops.gram import gram
from equivengine.ops.memory import free_bytes

#: Not a seed that anybody draws directions from.
_FILL_SEED = 0xF111_5EED
#: Bytes of a float64 panel.
_PANEL_BYTES = 64 << 20


@dataclass
class Exact:
    """U [n, n], S [n], Vh [r, m] or None, |J|_F."""

    U: Tensor
    S: Tensor
    Vh: Tensor | None
    frobenius: float


def solve_exact(
    op: Products, goal: Goal, vectors: bool, budget: int | None, seed: int, why: str, whole: bool
) -> SVDResult:
    """Make J, [B, n, m], and take it apart.

    Args:
        op: Products with J, n <= m.
        goal: What is asked for.
        vectors: Whether to return Vh.
        budget: Bytes that J may take in memory.
        seed: Of the one direction that tells whether J v agrees with J.
        why: Why this way was taken.
        whole: Whether all singular values are wanted.

    Raises:
        NotFiniteError: J holds NaN or infinity.
        UsageError: J v by forward products is not J times v.
        NumericsError: There is no room for J.
    """
    n, m = op.shape
    if op.given is not None:
        matrices = op.given[None]
        if not bool(torch.isfinite(matrices).all()):
            raise NotFiniteError("the matrix holds NaN or infinity", hint="check what it was computed from")
    else:
        matrices = storage(op.batch * n, m, op.kept_dtype, op.device, budget).view(op.batch, n, m)
        op.rows(matrices)
        _check_forward(op, matrices, seed)
        op.release()
    return take_apart(op, matrices, goal, vectors, why, whole)


def _check_forward(op: Products, matrices: Tensor, seed: int) -> None:
    v = gaussian_directions(seed, 0, 1, op.shape[1]).to(op.device).expand(op.batch, 1, -1)
    forward = op.push(v)[:, 0].to(torch.float64)
    written = torch.stack([_row_products(matrix, v[0, 0]) for matrix in matrices]).to(forward.device)
    length = torch.linalg.vector_norm
    op.check_adjoint(length(forward - written, dim=1), torch.zeros(op.batch).to(forward), length(written, dim=1))


def _row_products(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrix [n, m] times vector [m] (float64) by panels."""
    vector = vector.to(matrix.device)
    step = _panel(matrix.shape[0])
    panels = zip(matrix.split(step, dim=1), vector.split(step), strict=True)
    return torch.stack([columns.to(torch.float64) @ part for columns, part in panels]).sum(0)


def take_apart(
    op: Products,
    matrices: Tensor,
    goal: Goal,
    vectors: bool,
    why: str,
    whole: bool,
    basis: Tensor | None = None,
) -> SVDResult:
    """The result from J itself, or from Q J where its rows were made in an orthonormal basis Q [B, n, n]."""
    n = op.shape[0]
    found = []
    rank = n if whole else goal.rank or 0
    for matrix in matrices:
        each = exact(matrix, (rank or n) if vectors else 0, scratch=op.given is None)
        found.append(each)
    S = torch.stack([each.S for each in found]).to(op.device)
    rank = rank or goal.rank_of(S)
    U = torch.stack([each.U for each in found]).to(op.device)
    if basis is not None:
        U = basis.mT @ U
    error = op.floor(S[:, :1]).expand_as(S)
    kept = slice(0, rank)
    identified, sine = bounds.subspace(S, error, error, error[:, 0], rank, square=n == op.shape[1])
    Vh = None
    if vectors:
        if op.given is None:  # J was written over, and all of it is not copied
            Vh = matrices if rank == n else matrices[:, kept].clone()
        else:
            Vh = torch.stack([each.Vh[kept] for each in found if each.Vh is not None])
    return SVDResult(
        U=U[:, :, kept],
        S=S[:, kept],
        Vh=Vh,
        lower=(S - error).clamp_min(0)[:, kept],
        residual=error[:, kept],
        error=error[:, kept],
        resolution=float(error.max()),
        method="exact",
        products=op.counts.total(),
        status="ok",
        message=why,
        subspace=identified,
        subspace_error=sine,
        frobenius=torch.tensor([each.frobenius for each in found], dtype=torch.float64),
        products_by_precision=dict(op.counts),
    )


def storage(n: int, m: int, dtype: torch.dtype, device: torch.device, budget: int | None) -> Tensor:
    """Room for J, [n, m]: on the device; in main memory where that is too small; or in a temporary file.

    Args:
        n: Rows.
        m: Columns.
        dtype: Of J.
        device: Where J would best be.
        budget: Bytes that it may take in memory; three quarters of what is free when None.

    Raises:
        NumericsError: It does not fit on the disk either.
    """
    size = n * m * dtype.itemsize

    def fits(where: torch.device) -> bool:
        return size <= (budget if budget is not None else free_bytes(where) * 3 // 4)

    host = torch.device("cpu")
    for where in dict.fromkeys((device, host)):
        if fits(where):
            return torch.empty(n, m, dtype=dtype, device=where)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise NumericsError(
            "the Jacobian fits neither into memory nor on the disk",
            expected=f"{size:,} bytes in {folder}",
            got=f"{free:,} free",
            hint="ask for fewer values (rank=...), or set TMPDIR to a larger disk",
        )
    with tempfile.TemporaryFile(dir=folder) as file:  # the mapping keeps it; it has no name to be left behind
        file.truncate(size)
        kind = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
        return torch.from_numpy(np.memmap(file, dtype=kind, mode="r+", shape=(n, m)))


def exact(matrix: Tensor, vectors: int, *, scratch: bool) -> Exact:
    """Singular values of J [n, m], n <= m, and the leading right singular vectors.

    Args:
        matrix: J, float32 or float64, finite.
        vectors: How many rows of Vh; 0 for none.
        scratch: Whether J may be overwritten.
    """
    if matrix.dtype == torch.float64:
        return _by_triangle(matrix, vectors, scratch)
    squares_of_rows = gram(matrix, exact=True)
    squares, U = torch.linalg.eigh(squares_of_rows)
    S = squares.flip(0).clamp_min(0).sqrt()
    U = U.flip(1).contiguous()
    frobenius = float(squares_of_rows.trace().sqrt())
    if vectors == 0:
        return Exact(U, S, None, frobenius)
    # Values that squaring lost have no vectors.
    found = int((S[:vectors] > 1e-7 * S[0]).sum())
    inverse = torch.where(S[:vectors] > 1e-7 * S[:1], 1 / S[:vectors].clamp_min(1e-300), 0.0)
    Vh = _times(U[:, :vectors].T * inverse[:, None], matrix, scratch)
    orthonormalise(Vh[:found], out=Vh[:found])
    _complete(Vh, found)
    return Exact(U, S, Vh, frobenius)


def _complete(rows: Tensor, found: int) -> None:
    """Put random directions, orthonormal and orthogonal to the first ``found`` rows [r, m], behind these, in place."""
    basis, rest = rows[:found], rows[found:]
    if not len(rest):
        return
    rest.normal_(generator=torch.Generator(rows.device).manual_seed(_FILL_SEED))
    # Twice: normalizing blows up what was left of the basis.
    for _ in range(2):
        split_off(rest[None], basis[None])
        orthonormalise(rest, out=rest)


def _by_triangle(matrix: Tensor, vectors: int, scratch: bool) -> Exact:
    frobenius = _length(matrix)
    basis = matrix if scratch else matrix.clone(memory_format=torch.contiguous_format)
    found = orthonormalise(basis, out=basis)
    U, S, Wh = torch.linalg.svd(found.L)
    Vh = _times(Wh[:vectors], found.Q, scratch=True) if vectors else None
    return Exact(U, S, Vh, frobenius)


def _length(matrix: Tensor) -> float:
    """|J|_F, also where squares of its entries overflow or underflow."""
    largest = float(torch.maximum(matrix.amax(), -matrix.amin()))
    if largest == 0 or 1e-100 < largest < 1e100:
        return float(torch.linalg.vector_norm(matrix))
    lengths = torch.stack([torch.linalg.vector_norm(row / largest) for row in matrix])
    return largest * float(torch.linalg.vector_norm(lengths))


def _times(left: Tensor, matrix: Tensor, scratch: bool) -> Tensor:
    """Left [r, n] times matrix [n, m] in float64 by panels, r <= n; written over the matrix where it is scratch."""
    r = left.shape[0]
    out = matrix[:r] if scratch else matrix.new_empty(r, matrix.shape[1])
    for start in range(0, matrix.shape[1], step := _panel(matrix.shape[0])):
        out[:, start : start + step] = left @ matrix[:, start : start + step].to(torch.float64)
    return out


def _panel(n: int) -> int:
    return max(1, _PANEL_BYTES // (8 * max(n, 1)))
