"""What a solver found, for each pair: the input, how near it came, what it cost, and why it stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from equivengine.matching.problem import Cost

if TYPE_CHECKING:
    from equivengine.matching.problem import Problem

#: Why a solver stopped at a pair: the goal was met; nothing but roundoff is left; no step improves; the allowance is
#: spent; the iteration grew without bound.
Stop = Literal["reached", "roundoff", "stalled", "allowance", "diverged"]
#: Distances up to this many roundoffs of the target embedding are called roundoff.
ROUNDOFFS = 32


@dataclass(frozen=True)
class Trace:
    """The course of each pair, one row for each step, row 0 being the start; NaN after a pair has stopped. [K + 1, B].

    Attributes:
        distance: |f(z) - target|.
        cosine: Cosine between f(z) and the target.
        mean: Mean absolute difference from the original, input units.
        l2: L2 distance from the original, input units.
        equivalents: Forward-pass equivalents spent so far.
    """

    distance: torch.Tensor
    cosine: torch.Tensor
    mean: torch.Tensor
    l2: torch.Tensor
    equivalents: torch.Tensor

    def cost_to(self, distance: float) -> torch.Tensor:
        """Forward-pass equivalents at the first step within ``distance``, [B]; NaN for pairs that never were."""
        return self._first(distance, self.equivalents)

    def l2_at(self, distance: float) -> torch.Tensor:
        """L2 difference from the original at the first step within ``distance``, [B]; NaN for pairs that never were."""
        return self._first(distance, self.l2)

    def _first(self, distance: float, values: torch.Tensor) -> torch.Tensor:
        near = self.distance <= distance  # comparisons with NaN are False
        first = near.to(torch.int8).argmax(dim=0, keepdim=True)
        return torch.where(near.any(dim=0), values.gather(0, first)[0], torch.nan)


@dataclass(frozen=True)
class Matching:
    """Inputs that a solver found for B pairs.

    Attributes:
        x: The inputs, [B, *input_shape], in the run's precision; within their region.
        residual: f(x) - target, [B, n], float64.
        distance: |f(x) - target|, [B], float64.
        stop: Why the solver stopped at each pair.
        trace: The course.
        cost: What was spent.
        jacobians: Points at which J was formed or a matrix-free model was made, [B]; that of ``reducible`` is left out.
        optimality: First-order optimality residual where the solver has one, [B]; NaN elsewhere.
        reducible: Of pairs that missed the goal by more than roundoff: the share of the distance that the linear model
            says a change within the bounds could still save, [B]; 0 at a stationary point (Karush, Kuhn and Tucker).
            NaN where the goal was met, where J was not formed, and of gradient descent.
        solver: Its name.
        details: Facts of the solver, JSON types.
    """

    x: torch.Tensor
    residual: torch.Tensor
    distance: torch.Tensor
    stop: tuple[Stop, ...]
    trace: Trace
    cost: Cost
    jacobians: torch.Tensor
    optimality: torch.Tensor
    reducible: torch.Tensor
    solver: str
    details: dict[str, object] = field(default_factory=dict)

    @property
    def reached(self) -> torch.Tensor:
        """Which pairs met the goal, [B], bool."""
        return torch.tensor([stop == "reached" for stop in self.stop])


class Recorder:
    """Collects a `Trace` step by step."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._norm = torch.linalg.vector_norm(problem.target, dim=1)
        self._rows: list[torch.Tensor] = []

    def note(self, z: torch.Tensor, residual: torch.Tensor, which: torch.Tensor) -> None:
        """One step of the pairs ``which`` [k], at points z [k, m] with residuals [k, n]."""
        problem = self._problem
        row = torch.full((5, len(problem)), torch.nan, dtype=torch.float64, device=z.device)
        target = problem.target[which]
        value = residual + target
        size = torch.linalg.vector_norm(value, dim=1) * self._norm[which]
        moved = z - problem.origin[which]
        row[0, which] = torch.linalg.vector_norm(residual, dim=1)
        row[1, which] = (value * target).sum(dim=1) / size.clamp_min(torch.finfo(torch.float64).tiny)
        row[2, which] = moved.abs().mean(dim=1)
        row[3, which] = torch.linalg.vector_norm(moved, dim=1)
        row[4, which] = (problem.forwards + problem.products)[which.cpu()].to(row)
        self._rows.append(row)

    def splice(self, other: Recorder, rows: torch.Tensor, which: torch.Tensor, nearest: torch.Tensor) -> None:
        """Go on with the course of another solver, leaving out steps that were no nearer than all before.

        Args:
            other: A recorder of part of the problem, whose cost has not been added to it yet.
            rows: Pairs of that part, [k].
            which: The same pairs here, [k].
            nearest: Their distances so far, [k].
        """
        before = (self._problem.forwards + self._problem.products)[which.cpu()].to(nearest)
        for step in other._rows:
            values = step[:, rows].clone()
            values[4] += before
            nearer = values[0] < nearest
            nearest = torch.where(nearer, values[0], nearest)
            row = torch.full((5, len(self._problem)), torch.nan, dtype=torch.float64, device=nearest.device)
            row[:, which] = torch.where(nearer, values, torch.nan)
            if bool(nearer.any()):
                self._rows.append(row)

    def __len__(self) -> int:
        return len(self._rows)

    def last_cosine(self, which: torch.Tensor) -> torch.Tensor:
        """Cosine of the pairs ``which`` [k] at the step noted last."""
        return self._rows[-1][1, which]

    def trace(self) -> Trace:
        """All steps."""
        return Trace(*torch.stack(self._rows, dim=1).cpu())


def roundoff(problem: Problem) -> torch.Tensor:
    """Distances that roundoff of f alone may explain, [B]."""
    return ROUNDOFFS * torch.finfo(problem.dtype).eps * torch.linalg.vector_norm(problem.target, dim=1)
