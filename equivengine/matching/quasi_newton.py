"""Levenberg-Marquardt with a Jacobian that is learned on the way: cheap steps where forming J takes many products.

A model B of J is kept as B = Y^T W with orthonormal rows Y [R, n] and W [R, m], and corrected after every step d:

    secant   B <- B + e d^T / |d|^2,             e = f(z + d) - f(z) - B d      (Broyden, Math. Comp. 19, 1965)
    adjoint  B <- B + v (J^T v - B^T v)^T,       v = r / |r| at the new point    (Schlenkrich, Griewank and Walther,
                                                                                  Math. Program. 121, 2010)

The first takes no product, the second takes one; after a failed step v is e, with J where the step began. Every product
serves all later steps, whereas conjugate gradients begin again at every point. Once a step brings less than a Jacobian
would, J is formed, and learning goes on from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from equivengine.matching.descend import State
from equivengine.matching.linear import DENSE_BYTES, Formed
from equivengine.matching.problem import TOGETHER, Problem, finite
from equivengine.matching.region import project
from equivengine.matching.trial import within

#: The first damping, over |J^T r|^2 / |r|^2, and the damping with which a formed J begins, over |J|_F^2 / n.
FIRST_DAMPING, FORMED_DAMPING = 10.0, 0.1
#: Damping is multiplied by a factor where the ratio of actual to predicted decrease of the squared distance exceeds a
#: bound, by `POOR` where it exceeds none, by `FAILED` where the distance does not fall.
FACTORS = ((0.9, 0.1), (0.75, 0.3), (0.25, 0.6))
POOR, FAILED = 1.5, 4.0
#: Steps over which progress is measured.
WINDOW = 6
#: What a formed J is expected to bring: the distance falls to this share. Slower progress for its cost is given up.
EXPECTED = 0.1
#: A formed J that has brought the distance to no less than this share was the last.
USELESS = 0.8
#: Parts of directions below this are roundoff.
NEGLIGIBLE = 1e-8


def approach(
    problem: Problem,
    state: State,
    goal: torch.Tensor,
    bounds: tuple[torch.Tensor, torch.Tensor],
    most: torch.Tensor,
    l2: float | None,
    *,
    forms: bool,
) -> None:
    """Bring pairs nearer to their targets while that is cheap, at most to their goals.

    Args:
        problem: The problem.
        state: Where pairs stand, within bounds; changed in place, except for ``stop``.
        goal: Distance to stop at, [B].
        bounds: Smallest and largest value of every coordinate, [B, m] each.
        most: Jacobians that may be formed of each pair, [B].
        l2: Largest L2 distance from the original.
        forms: Whether J may be formed at all.

    Raises:
        ModelError: If f cannot be differentiated.
        NumericsError: If a derivative is not finite.
    """
    size = max(1, min(TOGETHER, DENSE_BYTES // (8 * problem.n * problem.m)))
    for which in torch.nonzero(state.apart > goal).flatten().split(size):
        if len(which):
            _Learner(problem, state, goal, bounds, most, l2, which, forms).run()


@dataclass
class _Progress:
    """Cost and logarithm of the distance after each step of one pair, since J was formed last."""

    formed: bool
    points: list[tuple[int, float]] = field(default_factory=list)

    def slow(self, n: int) -> bool:
        """Whether the last steps brought less for their cost than a formed J is expected to."""
        if len(self.points) <= WINDOW:
            return False
        (before, far), (now, near) = self.points[-1 - WINDOW], self.points[-1]
        return (far - near) / (now - before) < -math.log(EXPECTED) / (n + 2 * WINDOW)

    def useless(self) -> bool:
        """Whether a formed J brought next to nothing."""
        return self.formed and self.points[0][1] - self.points[-1][1] < -math.log(USELESS)


class _Learner:
    """Pairs ``which`` [k] on their way. Y is [k, R, n], W [k, R, m]; rows beyond a pair's rank are zero."""

    def __init__(
        self,
        problem: Problem,
        state: State,
        goal: torch.Tensor,
        bounds: tuple[torch.Tensor, torch.Tensor],
        most: torch.Tensor,
        l2: float | None,
        which: torch.Tensor,
        forms: bool,
    ) -> None:
        self.problem, self.state, self.goal, self.bounds = problem, state, goal, bounds
        self.most, self.l2, self.which, self.forms = most, l2, which, forms
        self.rows = min(problem.n, max(1, DENSE_BYTES // (32 * problem.m)))
        self.Y = torch.zeros(len(which), 0, problem.n, dtype=torch.float64, device=state.z.device)
        self.W = torch.zeros(len(which), 0, problem.m, dtype=torch.float64, device=state.z.device)
        self.rank = torch.zeros(len(which), dtype=torch.int64, device=state.z.device)
        self.progress = [_Progress(formed=False) for _ in which]
        residual = state.residual[which]
        pulled = problem.pulled(problem.differentiable(state.z[which], which), residual, which)
        everything = torch.ones(len(which), dtype=torch.bool, device=which.device)
        self.learn(residual, pulled, everything)
        slope = pulled.square().sum(dim=1) / residual.square().sum(dim=1)
        self.damping = FIRST_DAMPING * slope.clamp_min(torch.finfo(torch.float64).tiny)
        self.note(everything)

    def run(self) -> None:
        """Step until each pair has arrived or is handed over."""
        while len(self.which):
            self.step()
            stay = torch.ones(len(self.which), dtype=torch.bool, device=self.which.device)
            form = torch.zeros_like(stay)
            for place, pair in enumerate(self.which.tolist()):
                progress = self.progress[place]
                if bool(self.state.apart[pair] <= self.goal[pair]):
                    stay[place] = False
                elif progress.slow(self.problem.n) or int(self.rank[place]) >= self.rows < self.problem.n:
                    form[place] = self.forms and not progress.useless() and int(self.most[pair]) > 0
                    stay[place] = form[place]
            if bool(form.any()):
                self.form(torch.nonzero(form).flatten())
            if not bool(stay.all()):
                self.keep(torch.nonzero(stay).flatten())

    def step(self) -> None:
        """One step of each pair, and what it teaches."""
        problem, state, which = self.problem, self.state, self.which
        z, r, before = state.z[which], state.residual[which], state.apart[which]
        lower, upper, origin = self.bounds[0][which], self.bounds[1][which], problem.origin[which]
        seen = (self.Y @ r[..., None])[..., 0]
        nowhere = torch.zeros_like(z)
        d = within(Formed(self.W), seen, nowhere, self.damping, lower - z, upper - z, origin - z, self.l2)
        point = project(problem.rounded(torch.clamp(z + d, lower, upper)), origin, lower, upper, self.l2)
        point = problem.rounded(point)
        d = point - z
        foretold = r + (self.Y.mT @ (self.W @ d[..., None]))[..., 0]
        here = problem.differentiable(point, which)
        found = here[1].detach().to(torch.float64) - problem.target[which]
        apart = torch.linalg.vector_norm(found, dim=1)
        apart = torch.where(torch.isfinite(apart), apart, torch.inf)
        better = apart < before
        square = before.square()
        gain = (square - apart.square()) / (square - foretold.square().sum(dim=1)).clamp_min(1e-300)
        factor = torch.full_like(gain, POOR)
        for bound, value in reversed(FACTORS):
            factor = torch.where(gain > bound, value, factor)
        self.damping = self.damping * torch.where(better, factor, FAILED)

        wrong = found - foretold
        moved = torch.isfinite(apart) & (d.square().sum(dim=1) > 0)
        self.secant(torch.where(moved[:, None], wrong, 0.0), d, moved, better)
        arrived = which[better]
        state.z[arrived], state.residual[arrived], state.apart[arrived] = point[better], found[better], apart[better]
        state.recorder.note(state.z[which], state.residual[which], which)
        going = better & (apart > self.goal[which])
        if bool(going.any()):
            pulled = problem.pulled(here, torch.where(going[:, None], found, 0.0), which[going])
            self.learn(found, pulled, going)
        # Where the model was too wrong for a step, along what it foretold wrongly.
        failed = torch.nonzero(~better & moved).flatten()
        if len(failed):
            pulled = torch.zeros_like(z)
            back = problem.differentiable(z[failed], which[failed])
            pulled[failed] = problem.pulled(back, wrong[failed], which[failed])
            self.learn(wrong, pulled, ~better & moved)
        self.note(torch.ones_like(better))

    def learn(self, v: torch.Tensor, pulled: torch.Tensor, taught: torch.Tensor) -> None:
        """The adjoint update with J^T v = ``pulled`` of the pairs ``taught`` [k]."""
        size = torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        v, pulled = torch.where(taught[:, None], v / size, 0.0), torch.where(taught[:, None], pulled / size, 0.0)
        known, rest = self.split(v)
        wrong = torch.where(taught[:, None], pulled - (self.W.mT @ known[..., None])[..., 0], 0.0)
        self.W += known[..., None] * wrong[:, None, :]
        length = torch.linalg.vector_norm(rest, dim=1)
        self.add(rest, length[:, None] * wrong, taught & (length > NEGLIGIBLE))

    def secant(self, wrong: torch.Tensor, d: torch.Tensor, moved: torch.Tensor, better: torch.Tensor) -> None:
        """Broyden's update of the pairs that ``moved`` [k]; new rows where the step was ``better``."""
        along = torch.where(moved[:, None], d / d.square().sum(dim=1, keepdim=True).clamp_min(1e-300), 0.0)
        known, rest = self.split(wrong)
        self.W += known[..., None] * along[:, None, :]
        length = torch.linalg.vector_norm(rest, dim=1)
        enough = length > NEGLIGIBLE * torch.linalg.vector_norm(wrong, dim=1)
        self.add(rest, length[:, None] * along, moved & better & enough)

    def split(self, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Coefficients [k, R] of v [k, n] in the rows of Y, and what is left of it; twice, for orthogonality."""
        rest = v
        for _ in range(2):
            rest = rest - (self.Y.mT @ (self.Y @ rest[..., None]))[..., 0]
        return (self.Y @ v[..., None])[..., 0], rest

    def add(self, row: torch.Tensor, image: torch.Tensor, where: torch.Tensor) -> None:
        """One more row of Y, scaled to length 1, and of W, of the pairs ``where`` [k] that have room."""
        places = torch.nonzero(where & (self.rank < self.rows)).flatten()
        if not len(places):
            return
        self.room(int(self.rank[places].max()) + 1)
        unit = row[places] / torch.linalg.vector_norm(row[places], dim=1, keepdim=True)
        self.Y[places, self.rank[places]], self.W[places, self.rank[places]] = unit, image[places]
        self.rank[places] += 1

    def room(self, rows: int) -> None:
        """Make Y and W hold as many rows; they grow by halves, so that copies stay rare."""
        have = self.Y.shape[1]
        if rows <= have:
            return
        more = min(self.problem.n, max(rows, 16, have + have // 2)) - have
        self.Y = torch.cat([self.Y, self.Y.new_zeros(len(self.Y), more, self.Y.shape[2])], dim=1)
        self.W = torch.cat([self.W, self.W.new_zeros(len(self.W), more, self.W.shape[2])], dim=1)

    def form(self, places: torch.Tensor) -> None:
        """Form J of some pairs; the model is exact there."""
        problem, pairs = self.problem, self.which[places]
        self.room(problem.n)
        for place, pair in zip(places.tolist(), pairs.tolist(), strict=True):
            one = torch.tensor([pair], device=self.which.device)
            operator = problem.jacobian(self.state.z[one], one)
            self.W[place] = finite(operator.dense())[0].to(torch.float64)
            problem.spent(one, min(operator.shape))
            self.progress[place] = _Progress(formed=True)
        self.Y[places] = torch.eye(problem.n, dtype=torch.float64, device=self.Y.device)
        self.rank[places] = problem.n
        self.damping[places] = FORMED_DAMPING * self.W[places].square().sum(dim=(1, 2)) / problem.n
        self.state.jacobians[pairs.cpu()] += 1
        self.most[pairs.cpu()] -= 1
        formed = torch.zeros(len(self.which), dtype=torch.bool, device=places.device)
        formed[places] = True
        self.note(formed)

    def keep(self, places: torch.Tensor) -> None:
        """Go on with some of the pairs."""
        self.which, self.rank, self.damping = self.which[places], self.rank[places], self.damping[places]
        self.Y, self.W = self.Y[places], self.W[places]
        self.progress = [self.progress[place] for place in places.tolist()]

    def note(self, places: torch.Tensor) -> None:
        """Add where pairs stand to their progress."""
        for place in torch.nonzero(places).flatten().tolist():
            pair = int(self.which[place])
            spent = int(self.problem.forwards[pair] + self.problem.products[pair])
            self.progress[place].points.append((spent, math.log(max(float(self.state.apart[pair]), 1e-300))))
