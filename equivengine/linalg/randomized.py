"""The leading singular triplets from far fewer than min(n, m) products: block Krylov with a posteriori errors.

In mixed precision the Krylov space is grown with products in a cheaper one. Only its leading Ritz vectors are taken
over, and their products made anew in full precision: values depend on the vectors' errors to second order.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from equivengine.linalg import bounds
from equivengine.linalg.exact import take_apart
from equivengine.linalg.goal import Goal
from equivengine.linalg.orthonormal import orthonormalise
from equivengine.linalg.products import Products
from equivengine.linalg.result import SVDResult
from equivengine.linalg.search import Search, State, search
from equivengine.ops.memory import free_bytes

#: Relative to s_1, Ritz values of bf16 products mean nothing below this.
_COARSE_RESOLUTION = 1e-3


@dataclass
class Plan:
    """How to search.

    Attributes:
        block: Vectors of a step.
        seed: Of the random start.
        vectors: Whether Vh is wanted.
        may_give_up: Whether to write J out where that turns out to be cheaper.
    """

    block: int
    seed: int
    vectors: bool
    may_give_up: bool


def solve_randomized(op: Products, cheap: Products | None, goal: Goal, plan: Plan) -> SVDResult:
    """Search, in mixed precision if ``cheap`` products are given, and put the result together.

    Raises:
        NotFiniteError: A product holds NaN or infinity.
        UsageError: Products with J and J^T do not belong together.
    """
    n, m = op.shape
    # A CPU gives memory as it is written to, so room for all of J costs nothing until it is needed.
    fitting = free_bytes(op.device) * 3 // 4 // (op.batch * (op.kept_dtype.itemsize * m + 16 * n))
    wanted = n if plan.may_give_up else min(n, goal.limit // 2 + 2 * plan.block)
    capacity = min(n, max(min(wanted, fitting), 2 * plan.block))
    if cheap is None:
        run = Search(op, goal, capacity, plan.block, plan.seed)
    else:
        coarse = dataclasses.replace(goal, resolution=_COARSE_RESOLUTION)
        first = Search(cheap, coarse, capacity, plan.block, plan.seed, coarse=True)
        state, _ = search(first, may_give_up=False)
        cheap.release()
        run = Search(op, goal, capacity, plan.block, plan.seed)
        run.take_over(first, state)
        del first
    state, stopped = search(run, may_give_up=plan.may_give_up)
    if stopped == "exact is cheaper":
        spent = op.counts.total()
        Q, rows = run.space.complete()
        why = (
            f"exact: after {spent} products of block Krylov, more than the {n - run.space.size} that complete J were "
            f"still to come"
        )
        return take_apart(op, rows, goal, plan.vectors, why, False, basis=Q)
    return _result(op, run, state, stopped, plan)


def _result(op: Products, run: Search, state: State, stopped: str, plan: Plan) -> SVDResult:
    ritz, rank = state.ritz, state.rank
    noise = op.floor(ritz.values[:, :1])
    error = state.error + noise
    kept = slice(0, rank)
    allowed = run.goal.allowed(ritz.values)
    defect = ritz.defect[:, rank - 1] + noise[:, 0]
    identified, sine = bounds.subspace(ritz.values, error, allowed, defect, rank, square=_is_square(op))
    converged = stopped == "converged"
    Vh = None
    if plan.vectors:
        Vh = run.space.right_vectors(ritz.leading(rank))
        for each in Vh:
            orthonormalise(each, out=each)
    return SVDResult(
        U=ritz.left[:, kept].mT.contiguous(),
        S=ritz.values[:, kept],
        Vh=Vh,
        lower=(ritz.values - noise).clamp_min(0)[:, kept],
        residual=(ritz.residual + noise)[:, kept],
        error=error[:, kept],
        resolution=float(noise.max()),
        method="randomized",
        products=op.counts.total(),
        status="ok" if converged else "not_converged",
        message=_message(op, run, state, converged),
        subspace=identified,
        subspace_error=sine,
        products_by_precision=dict(op.counts),
    )


def _is_square(op: Products) -> bool:
    return op.shape[0] == op.shape[1]


def _message(op: Products, run: Search, state: State, converged: bool) -> str:
    spent, n = op.counts.total(), op.shape[0]
    if converged:
        return f"randomized: converged after {spent} products; the exact way takes {n}"
    if run.room == 0 and run.space.size < n:
        return f"not converged: memory holds no more than {run.space.size} vectors; ask for fewer values, or raise tol"
    return (
        f"not converged after {spent} products: the estimated error is {state.excess:.1f} times what tol allows; raise "
        f'tol or max_products, or take method="exact" ({n} products)'
    )
