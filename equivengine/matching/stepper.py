"""One step of a null walk: the wanted step, projected onto the null space within the region, back onto the class.

A step is the point of {d : J d = -r, z + d in the region} nearest to the wanted one (`subproblem`, with a small
weight); the same J then brings the point back onto the class. It counts only if the segment that leads to it stays near
the class too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from equivengine.errors import UsageError
from equivengine.matching.descend import mean_square
from equivengine.matching.goals import finite_start
from equivengine.matching.region import Region, project
from equivengine.matching.subproblem import box_least_squares

if TYPE_CHECKING:
    from equivengine.matching.linear import LinearModel
    from equivengine.matching.problem import Problem

#: Where segments are looked at, as shares of their length.
INSIDE = (0.25, 0.5, 0.75)
#: Points are corrected to this share of the tolerance, so that the middle of a segment has room.
AIM = 0.5
#: The deviation that step lengths are set for, as a share of the tolerance; it grows with the square of the length.
WANTED = 0.5
#: By how much a step is shortened when it fails.
LEAST, FAILED = 0.1, 0.7
#: Corrections with the J of the point that a step starts from, and trials of one step, ever shorter.
CORRECTIONS, TRIALS = 4, 12
#: A step that is shorter than this share of the wanted one is roundoff of the projection.
LEAKAGE = 1e-5
#: The least share of a direction that is taken for what can follow it.
PRESSED = 1e-3
#: Weight of the step's length against |J d + r|^2, over |J|_F^2 / n: where J is formed, and by products alone.
EXACT_WEIGHT, INEXACT_WEIGHT = 1e-10, 1e-6
#: Relative residuals of the subproblem, and Newton steps by products.
EXACT, INEXACT = 1e-9, 0.02
MOST_NEWTON, FEW_NEWTON = 60, 8


class Stepper:
    """Where all walks are, and how they go on.

    Args:
        problem: Starts and target embeddings.
        tolerance: Largest |f(z) - target|, [B].
        direction: Where to go, [B, *input_shape].
        towards: Where to go instead, [B, *input_shape].
        region: Where inputs may lie.

    Attributes:
        z: Points, [B, m], as f sees them; replaced by `advance`, never written to.
        r: f(z) - target, [B, n].

    Raises:
        UsageError: If a start is not within its tolerance, or outside of the region.
        NumericsError: If the embedding of a start is not finite.
    """

    def __init__(
        self,
        problem: Problem,
        tolerance: torch.Tensor,
        direction: torch.Tensor | None,
        towards: torch.Tensor | None,
        region: Region,
    ) -> None:
        self.problem, self.l2, self.tolerance = problem, region.l2, tolerance
        heading = direction if direction is not None else towards
        assert heading is not None
        self.heading = heading.detach().to(problem.origin).flatten(1)
        self.fixed = direction is not None
        if self.fixed:
            self.heading = self.heading / torch.linalg.vector_norm(self.heading, dim=1, keepdim=True)
        self.lower, self.upper = region.bounds(problem.origin, problem.dtype)
        self.z = problem.origin.clone()
        everything = torch.arange(len(problem), device=self.z.device)
        self.r = problem.residual(self.z, everything)
        apart = torch.linalg.vector_norm(self.r, dim=1)
        finite_start(apart)
        if not bool((apart <= tolerance).all()):
            raise UsageError(
                "a walk must start within its tolerance of its target",
                expected=f"|f(x) - target| <= {float(tolerance.min()):.3g}",
                got=f"{float(apart.max()):.3g}",
                hint="raise the distance; below roundoff of the embedding nothing can be held",
            )

    def progress(self, z: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """How far points z [k, m] are along the ways of walks ``which`` [k]."""
        origin, heading = self.problem.origin[which], self.heading[which]
        if self.fixed:
            return ((z - origin) * heading).sum(dim=1)
        return torch.linalg.vector_norm(origin - heading, dim=1) - torch.linalg.vector_norm(z - heading, dim=1)

    def apart(self) -> torch.Tensor:
        """|f(z) - target| at all points, [B]."""
        return torch.linalg.vector_norm(self.r, dim=1)

    def way(self, walk: int) -> float | None:
        """Length of the way to the goal of one walk; None along a direction."""
        return None if self.fixed else float(torch.linalg.vector_norm(self.problem.origin[walk] - self.heading[walk]))

    def wish(self, which: torch.Tensor, length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The wanted steps of walks ``which`` [k], before any constraint: [k, m], and their lengths [k].

        Lengths are those of the coordinates that can follow, at most ``length`` [k]. The others are part of the wish:
        what presses against a bound is held there, and on a linear map steps are those of the proximal point method.
        """
        z, heading = self.z[which], self.heading[which]
        way = heading if self.fixed else heading - z
        able = torch.where(way > 0, z < self.upper[which], z > self.lower[which])
        size = torch.linalg.vector_norm(way * able, dim=1)
        size = torch.maximum(size, PRESSED * torch.linalg.vector_norm(way, dim=1))
        if not self.fixed:
            length = torch.minimum(length, size)
        return way * (length / size)[:, None], length

    def trial(
        self, model: LinearModel, which: torch.Tensor, wish: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where wanted steps [k, m] lead once they are projected and corrected: points [k, m], residuals [k, n]."""
        z = self.nearest(model, which, self.z[which], self.r[which], wish, weight)
        r = self.problem.residual(z, which)
        apart = torch.linalg.vector_norm(r, dim=1)
        better = torch.ones_like(apart, dtype=torch.bool)
        for _ in range(CORRECTIONS):
            # No further than the aim: a correction takes away some of the step.
            rows = torch.nonzero(better & torch.isfinite(apart) & (apart > AIM * self.tolerance[which])).flatten()
            if not len(rows):
                break
            nowhere = torch.zeros_like(z[rows])
            corrected = self.nearest(model.take(rows), which[rows], z[rows], r[rows], nowhere, weight[rows])
            found = self.problem.residual(corrected, which[rows])
            size = torch.linalg.vector_norm(found, dim=1)
            better = torch.zeros_like(better)
            better[rows] = size < apart[rows]
            taken = better[rows]
            z[better], r[better], apart[better] = corrected[taken], found[taken], size[taken]
        return z, r

    def nearest(
        self,
        model: LinearModel,
        which: torch.Tensor,
        z: torch.Tensor,
        r: torch.Tensor,
        wish: torch.Tensor,
        weight: torch.Tensor,
    ) -> torch.Tensor:
        """The point of the region with J (point - z) = -r that is nearest to z + wish, as f sees it: [k, m]."""
        lower, upper = self.lower[which], self.upper[which]
        at = z + wish
        # In terms of what is added to the wish, so that the solver's relative tolerance is one of J wish + r.
        solved = box_least_squares(
            model,
            r + model.forward(wish),
            torch.zeros_like(wish),
            weight,
            lower - at,
            upper - at,
            tolerance=EXACT if model.exact else INEXACT,
            most=MOST_NEWTON if model.exact else FEW_NEWTON,
        )
        point = project(torch.clamp(at + solved.d, lower, upper), self.problem.origin[which], lower, upper, self.l2)
        return self.problem.rounded(point)

    def inside(self, start: torch.Tensor, end: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """Largest |f - target| at `INSIDE` of the segments from ``start`` to ``end`` [k, m] each: [k]."""
        points = torch.cat([start + t * (end - start) for t in INSIDE])
        apart = self.problem.residual(self.problem.rounded(points), which.repeat(len(INSIDE)))
        return torch.linalg.vector_norm(apart, dim=1).reshape(len(INSIDE), -1).amax(dim=0)

    def advance(
        self, model: LinearModel, which: torch.Tensor, length: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One step of walks ``which`` [k]: tried ever shorter, until points and segments are within the tolerance.

        Args:
            model: J at their points.
            which: Which walks, [k].
            length: The wanted lengths, [k].

        Returns:
            Whether each was made, the largest |f - target| inside its segment, and its wanted length; [k] each.
        """
        share = EXACT_WEIGHT if model.exact else INEXACT_WEIGHT
        weight = (share * mean_square(model, self.problem, which)).clamp_min(torch.finfo(torch.float64).tiny ** 0.5)
        made = torch.zeros(len(which), dtype=torch.bool, device=which.device)
        between, length = torch.full_like(length, torch.nan), length.clone()
        for _ in range(TRIALS):
            rows = torch.nonzero(~made).flatten()
            if not len(rows):
                break
            some, part = which[rows], model.take(rows)
            wish, length[rows] = self.wish(some, length[rows])
            end, residual = self.trial(part, some, wish, weight[rows])
            apart = torch.linalg.vector_norm(residual, dim=1)
            middle = self.inside(self.z[some], end, some)
            worst = torch.maximum(apart, middle) / self.tolerance[some]
            size = torch.linalg.vector_norm(end - self.z[some], dim=1)
            gains = self.progress(end, some) > self.progress(self.z[some], some)
            good = (worst <= 1) & gains & (size > LEAKAGE * length[rows])
            taken = some[good]
            self.z, self.r = self.z.index_copy(0, taken, end[good]), self.r.index_copy(0, taken, residual[good])
            between[rows[good]], made[rows[good]] = middle[good], True
            shorter = (WANTED / worst).sqrt().nan_to_num(nan=LEAST).clamp(LEAST, FAILED)
            length[rows] *= torch.where(good, 1.0, shorter)
        return made, between, length
