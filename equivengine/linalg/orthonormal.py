"""Orthonormal rows from a block of few long rows, by Cholesky factors of Gram matrices."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from equivengine.errors import NumericsError, UsageError
from equivengine.ops.gram import deferring_cholesky, gram, solve_lower

#: Squared lengths between which products of two entries, and sums of them, neither overflow nor lose digits.
_SAFE = {torch.float32: (2.0**-80, 2.0**100), torch.float64: (2.0**-800, 2.0**900)}
#: Pivots of a Gram matrix that was summed in float32: its entries are wrong by about 1e-7.
_FLOAT32_PIVOT = 1e-4
#: Times eps: what the rows before it leave of a row that depends on them, relative to its length. Rounding the entries
#: of a row leaves about eps / 3.
_DEPENDENT = 8
#: Not a seed that anybody draws the rows themselves from.
_FILL_SEED = 0x5EED_0F_0BA515
#: Passes needed: 2 to condition 1e6, 3 to 1e12, 4 beyond.
_MAX_PASSES = 12


@dataclass(frozen=True)
class Orthonormal:
    """X = L Q with orthonormal rows Q.

    Attributes:
        Q: [*batch, k, m], of X's dtype. Its first j rows span the first j rows of X, for every j up to the first row
            that was replaced.
        L: [*batch, k, k], float64, lower triangular; the columns of replaced rows are zero.
        replaced: Rows that depend on the rows before them up to roundoff, bool [*batch, k]. Those rows of Q are random
            directions orthogonal to all others, so that the other rows of Q alone span X's rows.
    """

    Q: Tensor
    L: Tensor
    replaced: Tensor

    @property
    def rank(self) -> Tensor:
        """Numerical rank of X, int64 [*batch]."""
        return (~self.replaced).sum(-1)


@torch.no_grad()
def orthonormalise(rows: Tensor, *, out: Tensor | None = None) -> Orthonormal:
    """Orthonormal rows with the span of the given ones, by repeated Cholesky QR.

    With G = X X^T = L L^T the rows of L^-1 X are orthonormal up to G's error times X's condition number squared, and
    repeating it takes care of the rest (CholeskyQR2: Fukaya, Nakatsukasa, Yanagisawa and Yamamoto, ScalA 2014; Yamamoto
    et al., *Roundoff error analysis of the CholeskyQR2 algorithm*, ETNA 44, 2015). Here:

    - G is accumulated in float64, of products in float32. Where a pivot of L is small, it is computed again of products
      in float64, and so is L^-1 X.
    - Where a pivot is small even so, the row is deferred: the rows before it are subtracted from it, and the next pass
      starts from what is left, brought to length one. That takes the place of a shift of G (shifted CholeskyQR3: Fukaya
      et al., SIAM J. Sci. Comput. 42, 2020), and tells which rows depend on others.
    - L^-1 is never formed: by substitution X = L Q holds to roundoff for any condition number.
    - One more pass is made until G, as measured, is the identity to 4 eps, or so near to it before a pass that the pass
      is known to suffice.

    Row i counts as dependent where the rows before it leave at most 8 eps of its length, eps being that of X's dtype:
    1e-6 in float32, 2e-15 in float64. The lengths of rows do not matter. With the compiled extension, Q on the CPU does
    not depend on the number of threads.

    Args:
        rows: X, [k, m] or [*batch, k, m] with k <= m, float32 or float64, dense along m for speed. Not differentiable.
        out: Where Q is written, of X's shape and dense along m; `rows` itself overwrites X. A new tensor when None.

    Raises:
        UsageError: Another dtype, more rows than columns, or an `out` that does not fit.
        NumericsError: NaN or infinity among the rows.
    """
    _check(rows, out)
    rows = rows if rows.stride(-1) == 1 else rows.contiguous()
    out = torch.empty_like(rows, memory_format=torch.contiguous_format) if out is None else out
    *batch, k, _ = rows.shape
    L = torch.zeros(*batch, k, k, dtype=torch.float64, device=rows.device)
    replaced = torch.ones(*batch, k, dtype=torch.bool, device=rows.device)
    for index in itertools.product(*map(range, batch)) if k else ():
        factor, kept = _one_block(rows[index], out[index])
        L[index][:, kept] = factor.to(L.device)
        replaced[index][kept] = False
    return Orthonormal(out, L, replaced)


def _check(rows: Tensor, out: Tensor | None) -> None:
    if rows.dtype not in _SAFE:
        raise UsageError("orthonormalise needs float32 or float64", got=rows.dtype)
    if rows.dim() < 2 or rows.shape[-2] > rows.shape[-1]:
        raise UsageError(
            "orthonormalise needs no more rows than columns", expected="[..., k, m] with k <= m", got=list(rows.shape)
        )
    if out is not None and ((out.shape, out.dtype, out.device) != (rows.shape, rows.dtype, rows.device)):
        raise UsageError(
            "out does not fit the rows",
            expected=f"{list(rows.shape)} {rows.dtype} on {rows.device}",
            got=f"{list(out.shape)} {out.dtype} on {out.device}",
        )
    if out is not None and out.stride(-1) != 1 and out.shape[-1] > 1:
        raise UsageError("out must be dense along m", expected="stride 1", got=out.stride(-1))


def _one_block(rows: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Write Q; return L's columns [k, n] of the n rows that were kept, and the indices of these rows."""
    k, m = rows.shape
    basis, factor, kept = _passes(rows, out)
    n = len(kept)
    if n < k:
        block, change = _completed(basis, rows.new_empty(k, m))
        factor = factor @ change[:n, :n]
        out[kept.to(out.device)] = block[:n]
        out[torch.ones(k, dtype=torch.bool).index_fill(0, kept, False).to(out.device)] = block[n:]
    elif basis is not out:
        out.copy_(basis)
    return factor, kept


def _completed(basis: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
    """Write the basis [n, m] and random directions orthogonal to it to `block` [k, m]; also returns its L [k, k]."""
    n, generator = len(basis), torch.Generator().manual_seed(_FILL_SEED)
    for _ in range(3):
        # Behind the rows that were kept: so these stay, and the random ones become orthogonal to all of them.
        block[:n] = basis
        block[n:] = torch.randn(block[n:].shape, generator=generator, dtype=block.dtype)
        found, change, kept = _passes(block, block)
        if len(kept) == len(block):
            return found, change
    raise NumericsError("random directions depend on the rows", expected=f"rank {len(block)}", got=f"rank {len(kept)}")


def _passes(rows: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Orthonormalize the rows that do not depend on others; `out`, which may be `rows`, is overwritten.

    Returns:
        The basis [n, m], L's columns [k, n] and the indices [n] of these rows, both on the CPU.
    """
    k = len(rows)
    eps = torch.finfo(rows.dtype).eps
    dependent = _DEPENDENT * eps
    # Far above the error of an exact G.
    pivot = 1e3 * k**0.5 * torch.finfo(torch.float64).eps
    in_float32 = rows.dtype == torch.float32 and not rows.is_cuda

    source, factor, G = _safely_scaled(rows, out)
    kept, deferred = torch.arange(k), torch.ones(k, dtype=torch.bool)
    lengths = length = factor.diagonal() * G.diagonal().sqrt()
    for _ in range(_MAX_PASSES):
        # What the rows before it left of each row's length. Only of a deferred row no later one has a part.
        left = factor[kept, torch.arange(len(kept))] * G.diagonal().sqrt()
        # A row that was deferred once more may have parts in later rows from the pass between: then it stays, for L to
        # have them.
        parts = factor.abs() * G.diagonal().sqrt()
        parts[kept, torch.arange(len(kept))] = 0
        held = (parts > dependent * lengths[:, None]).any(dim=0)
        independent = ~deferred | held | (left > dependent * length)
        if not independent.all():
            source, G = source[independent.to(source.device)], G[independent][:, independent]
            factor, kept = factor[:, independent], kept[independent]
            left, length = left[independent], length[independent]
            out = source
        identity = torch.eye(len(kept), dtype=torch.float64)
        if not len(kept) or float((G - identity).abs().max()) <= 4 * eps:
            return source, factor, kept
        # A row that may turn out to depend on others is deferred, for the next pass to measure what is left of it.
        pivots = (2 * dependent * length / left).square().clamp(pivot, 0.25)
        norm, C = _equilibrated(G)
        lower, deferred = deferring_cholesky(C, pivots.clamp_min(_FLOAT32_PIVOT) if in_float32 else pivots)
        exact = not in_float32 or bool(deferred.any())
        if exact and in_float32:
            norm, C = _equilibrated(gram(source, exact=True).cpu())
            lower, deferred = deferring_cholesky(C, pivots)
        lower *= norm[:, None]
        source = solve_lower(lower.to(source.device), source, exact=exact, out=out)
        factor = factor @ lower
        # |C - 1|_2 <= |(C - 1)^2|_F^(1/2) <= 1/2: then the new rows' G differs from 1 by twice the error of C at most.
        if float(gram(C - identity).norm().sqrt()) <= 0.5:
            return source, factor, kept
        G = gram(source).cpu()
    raise NumericsError(
        f"the rows are not orthonormal after {_MAX_PASSES} passes",
        expected=f"|Q Q^T - 1| <= {4 * eps:.1e}",
        got=f"{float((G - identity).abs().max()):.1e}",
    )


def _equilibrated(G: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths of the rows, and the Gram matrix of the rows brought to length one."""
    norm = G.diagonal().sqrt()
    return norm, G / norm[:, None] / norm


def _safely_scaled(rows: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """X = diag(s) Y with powers of two s: Y (X itself where no row is very long or short), diag(s), Y Y^T.

    Raises:
        NumericsError: NaN or infinity among the rows.
    """
    low, high = _SAFE[rows.dtype]
    G = gram(rows).cpu()
    squares = G.diagonal()
    if bool(((squares >= low) & (squares <= high)).all()):
        return rows, torch.eye(len(rows), dtype=torch.float64), G
    if not bool(torch.isfinite(rows).all()):
        raise NumericsError("the rows hold NaN or infinity", hint="check what they were computed from")
    smallest, largest = rows.aminmax(dim=1)
    most = torch.maximum(largest, -smallest)
    exponent = torch.where(most > 0, most.frexp().exponent - 1, 0)
    # In two steps: 2^-exponent itself may overflow.
    half = exponent // 2
    scaled = torch.mul(rows, _power_of_two(-half, rows.dtype)[:, None], out=out)
    scaled *= _power_of_two(half - exponent, rows.dtype)[:, None]
    return scaled, _power_of_two(exponent.cpu(), torch.float64).diag(), gram(scaled).cpu()


def _power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.ldexp(torch.ones_like(exponent, dtype=dtype), exponent)
