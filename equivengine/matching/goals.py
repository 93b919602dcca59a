"""Checks of what all solvers are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from equivengine.errors import NumericsError, UsageError

if TYPE_CHECKING:
    from equivengine.matching.problem import Problem


def goals(distance: float | torch.Tensor, problem: Problem) -> torch.Tensor:
    """The distance to stop at for each pair, [B], float64.

    Raises:
        UsageError: If one is negative or NaN, or if their number is wrong.
    """
    given = torch.as_tensor(distance, dtype=torch.float64, device=problem.origin.device)
    if given.dim() > 1 or (given.dim() == 1 and len(given) != len(problem)):
        raise UsageError("one distance, or one for each pair", expected=f"[{len(problem)}]", got=list(given.shape))
    if not bool((given >= 0).all()):
        raise UsageError("a distance to stop at must not be negative", got=given.min().item())
    return given.expand(len(problem))


def finite_start(apart: torch.Tensor) -> None:
    """Refuse starts whose embeddings are not finite.

    Raises:
        NumericsError: Naming the first.
    """
    bad = torch.nonzero(~torch.isfinite(apart)).flatten()
    if len(bad):
        raise NumericsError(
            "the embedding of a start holds NaN or infinity",
            expected="finite embeddings",
            got=f"{len(bad)} of {len(apart)} starts, the first at place {int(bad[0])}",
            hint="look at these inputs, or leave them out",
        )
