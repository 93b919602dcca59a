"""How much nearer to a target a change of first order within the region could still come: 0 at a stationary point.

|J^T r| alone does not tell a stationary point from a narrow valley: a tiny part of r along a large singular value makes
it large, and the unit of inputs makes it anything. The share of |r| that the linear model would still save is free of
units, heeds the bounds, and is 0 exactly where r has no descent direction in them (Karush, Kuhn and Tucker).
"""

from __future__ import annotations

import torch

from equivengine.matching.descend import State, mean_square
from equivengine.matching.linear import Mode, linearise
from equivengine.matching.problem import Problem
from equivengine.matching.result import roundoff
from equivengine.matching.subproblem import box_least_squares

#: Weight of |d|^2 in the least-squares problem, over |J|_F^2 / n: singular values below 1e-5 of their rms are null.
WEIGHT = 1e-10
#: |grad phi| over |r| up to which its solution counts, and its Newton steps at most.
SOLVED, MOST = 1e-3, 200


def reducible(
    problem: Problem,
    state: State,
    goal: torch.Tensor,
    bounds: tuple[torch.Tensor, torch.Tensor],
    mode: Mode,
) -> torch.Tensor:
    """1 - min |J d + r| / |r| over z + d within bounds, [B], of pairs further from targets than goal and roundoff.

    It forms one more Jacobian for each of them, which is counted among the products only: the allowance of a solver is
    for its steps. Of all other pairs, without formed Jacobians, and where the problem is not solved, it is NaN, which
    is unknown. An L2 budget is not heeded.

    Args:
        problem: The problem.
        state: Where pairs stand.
        goal: Distance that was wanted, [B].
        bounds: Smallest and largest value of every coordinate, [B, m] each.
        mode: How J is had.

    Raises:
        ModelError: If f cannot be differentiated.
        NumericsError: If a derivative is not finite.
    """
    share = torch.full_like(state.apart, torch.nan)
    which = torch.nonzero(state.apart > torch.maximum(goal, roundoff(problem))).flatten()
    if mode != "dense" or not len(which):
        return share
    z, r = state.z[which], state.residual[which]
    model = linearise(problem, z, which, mode)
    scale = mean_square(model, problem, which)
    step = box_least_squares(
        model,
        r,
        torch.zeros_like(z),
        WEIGHT * scale.clamp_min(torch.finfo(torch.float64).tiny / WEIGHT),
        bounds[0][which] - z,
        bounds[1][which] - z,
        tolerance=SOLVED,
        most=MOST,
    )
    left = torch.linalg.vector_norm(r + model.forward(step.d), dim=1) / torch.linalg.vector_norm(r, dim=1)
    share[which] = torch.where(step.gap <= SOLVED, (1 - left).clamp_min(0.0), torch.nan)
    return share
