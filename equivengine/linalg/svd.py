"""Singular values and vectors of a Jacobian with error bars: exact or randomized, whichever takes fewer products."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any

import torch
from torch import Tensor

from equivengine.errors import UsageError
from equivengine.linalg import bounds
from equivengine.linalg.exact import solve_exact
from equivengine.linalg.goal import VALUE_TOL, Goal
from equivengine.linalg.products import NotFiniteError, Products, products_of
from equivengine.linalg.randomized import Plan, solve_randomized
from equivengine.linalg.result import Method, SVDResult
from equivengine.linalg.search import least_basis

METHODS = ("auto", "exact", "randomized")
#: What mixed precision grows its space in: half the time of fp32 on CPUs with bf16 instructions, a tenth on a GPU.
_CHEAP = "bf16"
#: Vectors of a step. A product costs about the same at any number on a CPU, and small blocks need fewer of them; a GPU
#: wants many at a time.
_BLOCK = {"cpu": 2, "cuda": 16}
#: Times the noise of products, as measured at the leading vectors.
_NOISE_SAFETY = 3.0
#: Beyond this share of the exact way's products, the least that block Krylov can do is not worth starting.
_WORTH_STARTING = 0.6


def svd(
    op: Any,
    rank: int | None = None,
    tol: float | None = None,
    *,
    method: str = "auto",
    precision: str | None = None,
    seed: int = 0,
    vectors: bool = True,
    block: int | None = None,
    max_products: int | None = None,
    memory_budget: int | None = None,
    noise_directions: int = 1,
) -> SVDResult:
    """Singular values and vectors of J [n, m], the whole spectrum or its leading part.

    Exact: min(n, m) products make J itself. Randomized: a block Krylov space is grown until the wanted values are
    within ``tol`` by an a posteriori estimate. ``"auto"`` starts with the cheaper one by counted products, and where
    the randomized way turns out to be the longer one, it completes the rows that it has to the whole of J.

    Args:
        op: A `JacobianOperator` of one input or a batch; a dense matrix (torch or NumPy); or anything with ``shape``
            and ``jvp``/``vjp`` of flat directions [K, m] / [K, n], or ``@`` and ``.T @`` (a LinearOperator of SciPy).
        rank: How many triplets, 1 to min(n, m). None: all values above ``tol`` s_1, or the whole spectrum where ``tol``
            is None as well.
        tol: Where ``rank`` is given the largest error of a value, relative to itself; 1e-3 when None. Where it is not,
            the threshold relative to s_1; values are then wanted within the smaller of ``tol`` and 1e-3 times s_1.
            Values below the resolution count as known.
        method: ``"auto"``, ``"exact"`` or ``"randomized"``.
        precision: None for the operator's own; ``"mixed"`` to grow the Krylov space with bf16 products and make the
            last ones in the operator's own; or a precision of the operator (``"fp64"``, ``"bf16"``, ...) for all.
        seed: Of the random start.
        vectors: Whether to return Vh.
        block: Vectors of a step; 2 on a CPU and 16 on a GPU when None.
        max_products: Randomized: stop with "not_converged" beyond that many; 2 min(n, m) when None.
        memory_budget: Bytes that J may take in memory on the exact way; beyond it, it lies in a temporary file. Three
            quarters of what is free when None. Of a GPU's operator it may lie in main memory; Vh is then there as well.
        noise_directions: How many products are repeated in float64, at the leading left vectors, to measure how far
            the operator's own are off: three times the largest difference widens `lower`, `residual` and `error`. Only
            of a `JacobianOperator` in less than float64, which keeps a float64 copy of the model for it; 0 for none.

    Returns:
        The result. Its ``status`` is "failed" where a product was not finite.

    Raises:
        UsageError: An argument makes no sense, or the operator's products with J and J^T do not belong together.
        NumericsError: J fits neither into memory nor on the disk.
    """
    if method not in METHODS:
        raise UsageError("unknown method", expected=" or ".join(METHODS), got=repr(method))
    if method == "exact" and precision == "mixed":
        raise UsageError("mixed precision belongs to the randomized method", got='method="exact"', hint="leave it out")
    products, batched = products_of(op)
    if precision not in (None, "mixed", products.precision):
        products = products.in_precision(precision)
    flipped = products.shape[0] > products.shape[1]
    if flipped:
        products = products.transposed
    _check(products, rank, tol, method, block, max_products)
    n = products.shape[0]
    block = min(block or _BLOCK.get(products.device.type, 16), n)
    goal = Goal(rank, VALUE_TOL if tol is None else tol, products.resolution, max_products or 2 * n, products.underflow)
    least = _least(rank, block)
    whole = rank is None and tol is None
    both = vectors or flipped  # the vectors of the longer side, which may be U
    exact_first = method == "exact" or whole or (method == "auto" and least > _WORTH_STARTING * n)
    try:
        if exact_first:
            why = _why_exact(method, whole, least, products)
            found = solve_exact(products, goal, both, memory_budget, seed, why, whole)
        else:
            mixed = products.in_precision(_CHEAP) if precision == "mixed" else None
            plan = Plan(block, seed, both, may_give_up=method == "auto")
            found = solve_randomized(products, mixed, goal, plan)
        found = _with_noise(found, products, noise_directions)
    except NotFiniteError as error:
        found = _failed(products, rank or 1, both, "exact" if exact_first else "randomized", error)
    finally:
        products.release()
    found = _as_asked(found, flipped, batched)
    return found if vectors else dataclasses.replace(found, Vh=None)


def _with_noise(found: SVDResult, op: Products, count: int) -> SVDResult:
    """Measure |(J - J_64)^T u| at the leading left vectors, and widen all bounds by it."""
    if count == 0 or op.precision == "fp64" or not op.has_float64:
        return found
    u = found.U[:, :, :count].mT
    exact = op.in_precision("fp64")
    gap = torch.linalg.vector_norm(op.pull(u).to(torch.float64) - exact.pull(u), dim=2).amax(1, keepdim=True)
    exact.release()
    floor = op.floor(found.S[:, :1])
    wider = (_NOISE_SAFETY * gap - floor).clamp_min(0)
    sine = min(1.0, found.subspace_error * float((1 + wider / floor).max()))
    return dataclasses.replace(
        found,
        subspace="not_converged" if found.subspace == "identified" and sine > bounds.SAME else found.subspace,
        subspace_error=sine,
        lower=(found.lower - wider).clamp_min(0),
        residual=found.residual + wider,
        error=found.error + wider,
        resolution=max(found.resolution, _NOISE_SAFETY * float(gap.max())),
        noise=float(gap.max()),
        products=op.counts.total(),
        products_by_precision=dict(op.counts),
    )


def _check(
    op: Products, rank: int | None, tol: float | None, method: str, block: int | None, limit: int | None
) -> None:
    smaller = min(op.shape)
    if smaller == 0:
        raise UsageError("the operator is empty", expected="n, m >= 1", got=op.shape)
    if rank is not None and not 1 <= operator.index(rank) <= smaller:
        raise UsageError("rank is out of range", expected=f"1 to min(n, m) = {smaller}", got=rank)
    if tol is not None:
        floor = op.resolution
        if not (math.isfinite(tol) and floor <= tol < 1):
            raise UsageError(
                "tol is out of range",
                expected=f"{floor:g}, the resolution of {op.described}, to 1",
                got=tol,
                hint='pass precision="fp64" for smaller ones'
                if 2e-14 <= tol < floor and op.precision != "fp64"
                else None,
            )
    if method == "randomized" and rank is None and tol is None:
        raise UsageError(
            "the randomized method needs to know how much is wanted", expected="rank, tol or both", got="neither"
        )
    if block is not None and block < 1:
        raise UsageError("block must be at least 1", got=block)
    if limit is not None and limit < 1:
        raise UsageError("max_products must be at least 1", got=limit)


def _least(rank: int | None, block: int) -> int:
    """Products of the shortest possible search: a space that is large enough, in three steps at least."""
    return 2 * block * max(3, math.ceil(least_basis(rank or 1, block) / block))


def _why_exact(method: str, whole: bool, least: int, op: Products) -> str:
    n = op.shape[0]
    cost = f"{n} products" if op.given is None else f"as long as {n} products, of the given matrix"
    if method == "exact":
        return f"exact, as asked: {cost}"
    if whole:
        return f"exact: the whole spectrum takes {cost}"
    return f"exact: {cost}; block Krylov would need {least} at least"


# -- the result, as the caller's operator has it ----------------------------------------------------------------------


def _as_asked(found: SVDResult, flipped: bool, batched: bool) -> SVDResult:
    """Undo the transposition that made J wide, fix signs, and drop the batch where none was given."""
    left, right = found.U, found.Vh
    signs = _signs(left)
    left = left * signs[:, None]
    if right is not None:
        right.mul_(signs[:, :, None].to(right.dtype))
    if flipped:  # U and V change places; signs follow the shorter side
        assert right is not None
        left, right = right.mT.to(torch.float64), left.mT.to(right.dtype)
    found = dataclasses.replace(found, U=left, Vh=right)
    if batched:
        return found
    return dataclasses.replace(
        found,
        U=left[0],
        S=found.S[0],
        Vh=None if right is None else right[0],
        lower=found.lower[0],
        residual=found.residual[0],
        error=found.error[0],
        frobenius=None if found.frobenius is None else found.frobenius[0],
    )


def _signs(left: Tensor) -> Tensor:
    """Sign of the entry of largest magnitude of every column of [B, n, r], as +1 or -1: [B, r]."""
    largest = left.gather(1, left.abs().argmax(1, keepdim=True)).squeeze(1)
    return torch.where(largest < 0, -1.0, 1.0)


def _failed(op: Products, rank: int, vectors: bool, method: Method, error: Exception) -> SVDResult:
    n, m = op.shape
    nan = torch.full((op.batch, rank), torch.nan, dtype=torch.float64, device=op.device)
    return SVDResult(
        U=nan.new_full((op.batch, n, rank), torch.nan),
        S=nan,
        Vh=nan.new_full((op.batch, rank, m), torch.nan) if vectors else None,
        lower=nan,
        residual=nan,
        error=nan,
        resolution=math.nan,
        method=method,
        products=op.counts.total(),
        status="failed",
        message=str(error),
        subspace="not_identifiable",
        subspace_error=1.0,
        products_by_precision=dict(op.counts),
    )
