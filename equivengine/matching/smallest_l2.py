"""The smallest L2 change of an input that brings its embedding within a distance of a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch

from equivengine.errors import UsageError
from equivengine.matching.descend import State, mean_square
from equivengine.matching.goals import finite_start, goals
from equivengine.matching.linear import Mode, choose, linearise
from equivengine.matching.problem import Problem
from equivengine.matching.region import Region
from equivengine.matching.restart import restart
from equivengine.matching.result import Matching, Recorder, Stop, roundoff
from equivengine.matching.stationary import reducible
from equivengine.matching.trial import attempt

if TYPE_CHECKING:
    from equivengine.matching.linear import LinearModel

#: The first weight of |z - x|^2 / 2 against |f(z) - target|^2 / 2, over |J|_F^2 / n: the change stays small.
FIRST_WEIGHT = 250.0
#: The weight is multiplied by this once a step lowers the objective by less than `SETTLED` of it.
SHRINK, SETTLED = 0.3, 0.03
#: Once the goal is met: weights are bisected until both ends are this close, each settled to within `POLISHED`.
CLOSE, POLISHED = 1.1, 3e-4
#: Damping of a failed step, its growth and its decay; below `NO_DAMPING` it is left out.
FIRST_DAMPING, GROWTH, DECAY, NO_DAMPING = 0.25, 4.0, 0.2, 1e-2
#: Failed steps in a row after which a weight counts as settled.
GIVE_UP = 12
#: Weights this small, over |J|_F^2 / n, lead nowhere; another start does.
LEAST_WEIGHT = 1e-9
#: Likewise once so many weights in a row, each `SHRINK` of the one before, leave more than this share of the distance.
#: Above |J|_F^2 / n they say nothing: the weight then holds the change back.
FRUITLESS, LEFT = 5, 0.85
#: Linearizations that are kept back to shrink the change that a failed pair is matched by from another start.
SHRINKING = 20
#: Relative residual of multipliers that are fitted by conjugate gradients.
PRECISE = 1e-3


def smallest_l2(
    f: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    target: torch.Tensor,
    *,
    distance: float | torch.Tensor,
    region: Region | None = None,
    precision: str = "fp32",
    max_jacobians: int = 120,
    jacobian: Literal["auto", "dense", "products"] = "auto",
) -> Matching:
    """Minimize |z - x| subject to |f(z) - target| <= distance and the bounds of a region.

    Continuation in a weight w: |z - x|^2 / 2 + |f(z) - target|^2 / (2 w) is minimized in the box for falling w, by
    damped Gauss-Newton steps that solve their box-constrained subproblems exactly and are corrected for curvature;
    once the goal is met, w is bisected for the largest that meets it. Where that leads to no match, it begins again at
    one that Levenberg-Marquardt finds, from the original or from elsewhere (`restart`). The minimum is local.

    ``optimality`` of the result is the first-order residual (Karush, Kuhn and Tucker) of the smallest change with the
    embedding that was reached: |z - clip(x - J^T y)| / |z - x| at the multipliers y that fit best; 0 at a minimum.

    Args:
        f: An encoder, or any callable [B, *input_shape] -> [B, n].
        x: Originals, [B, *input_shape].
        target: Target embeddings, [B, n].
        distance: Largest |f(z) - target|, positive; one number, or one for each pair, [B].
        region: Where inputs may lie; the box [0, 1] when None. An L2 budget only decides whether the match counts.
        precision: ``"fp32"`` or ``"fp64"``.
        max_jacobians: Points at which the model may be linearized, for each pair.
        jacobian: As for `levenberg_marquardt`.

    Returns:
        The smallest change found that meets the goal; of pairs without one, the nearest embedding.

    Raises:
        UsageError: If an argument makes no sense.
        ModelError: If f cannot be evaluated or differentiated.
        NumericsError: If a target, the embedding of an original or a derivative is not finite.
    """
    problem = Problem(f, x, target, precision)
    region = region or Region()
    if max_jacobians < 1:
        raise UsageError("max_jacobians must be at least 1", got=max_jacobians)
    goal = goals(distance, problem)
    if not bool((goal > 0).all()):
        raise UsageError(
            "the smallest change needs a positive distance", got=float(goal.min()), hint="1e-3 of the embeddings' own"
        )
    continuation = Continuation(problem, goal, region.bounds(problem.origin, problem.dtype))
    mode = choose(problem, jacobian)
    continuation.search(region, mode, (max_jacobians, max_jacobians))
    return continuation.result(region, mode)


def first_order(
    model: LinearModel, z: torch.Tensor, origin: torch.Tensor, lower: torch.Tensor, upper: torch.Tensor
) -> torch.Tensor:
    """|z - clip(x - J^T y)| / |z - x| of points z [k, m], y fitted to the coordinates that touch no bound; [k]."""
    change = z - origin
    free = ((z > lower) & (z < upper)).to(z)
    everything = torch.ones(len(z), dtype=torch.bool, device=z.device)
    weight = torch.full_like(z[:, 0], torch.finfo(z.dtype).tiny)
    _, pulled = model.solve(free, weight, -model.forward(free * change), everything, PRECISE)
    length = torch.linalg.vector_norm(change, dim=1)
    return torch.linalg.vector_norm(z - torch.clamp(origin - pulled, lower, upper), dim=1) / length


class Continuation:
    """Where each pair stands, and how it moves on. Arrays are [B], [B, m] and [B, n]."""

    def __init__(self, problem: Problem, goal: torch.Tensor, bounds: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.problem, self.goal, self.bounds = problem, goal, bounds
        self.z = problem.origin.clone()
        everything = torch.arange(len(problem), device=self.z.device)
        self.residual = problem.residual(self.z, everything)
        self.apart = torch.linalg.vector_norm(self.residual, dim=1)
        finite_start(self.apart)
        self.recorder = Recorder(problem)
        self.recorder.note(self.z, self.residual, everything)
        self.jacobians = torch.zeros(len(problem), dtype=torch.int64)
        self.stop: list[Stop] = ["reached"] * len(problem)
        self.scale, self.weight, self.damping = (torch.zeros_like(self.apart) for _ in range(3))
        self.failures = torch.zeros_like(everything)
        #: Distances at the last weights that did not meet the goal, the latest last; infinite where there were none.
        self.course = torch.full((len(problem), FRUITLESS + 1), torch.inf, dtype=torch.float64, device=self.z.device)
        #: Largest weight known to meet the goal and smallest known not to: 0 and infinity while there is none.
        self.meets, self.misses = torch.zeros_like(self.apart), torch.full_like(self.apart, torch.inf)
        #: The shortest change that met the goal: point, residual, weight, length.
        self.best_z, self.best_residual = self.z.clone(), self.residual.clone()
        self.best_weight = torch.zeros_like(self.apart)
        self.best_length = torch.full_like(self.apart, torch.inf).masked_fill(self.apart <= goal, 0.0)

    def search(self, region: Region, mode: Mode, most: tuple[int, int]) -> None:
        """All of it.

        Args:
            region: Where inputs may lie.
            mode: How J is had.
            most: Linearizations of a pair at most: on its first way, and in all where that led to no match.
        """
        self.run(torch.nonzero(self.apart > self.goal).flatten(), mode, most[0])
        self.begin_from_matches(region, mode, most[1])

    def best(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The smallest changes that met their goals, of pairs without one the last points: [B, m], residuals [B, n]."""
        met = torch.isfinite(self.best_length)[:, None]
        return torch.where(met, self.best_z, self.z), torch.where(met, self.best_residual, self.residual)

    def run(self, which: torch.Tensor, mode: Mode, most: int) -> None:
        """Go on with the pairs ``which`` [k] until each is done; those without a weight get their first."""
        if not len(which):
            return
        model = linearise(self.problem, self.z[which], which, mode)
        self.jacobians[which.cpu()] += 1
        self.scale[which] = mean_square(model, self.problem, which)
        first = self.weight[which] == 0
        self.weight[which] = torch.where(first, FIRST_WEIGHT * self.scale[which], self.weight[which])
        while len(which):
            better = self.step(model, which)
            keep = self.judge(which, better, most)
            if not bool(keep.any()):
                break
            again = torch.nonzero(keep & better).flatten()
            model.refresh(again, self.z[which[again]], which[again])
            self.jacobians[which[again].cpu()] += 1
            if not bool(keep.all()):
                model = model.take(torch.nonzero(keep).flatten())
                which = which[keep]

    def begin_from_matches(self, region: Region, mode: Mode, most: int) -> None:
        """Shrink the changes that Levenberg-Marquardt finds from other starts, of pairs that came to no match."""
        lost = torch.nonzero(torch.isinf(self.best_length)).flatten()
        if not len(lost):
            return
        state = State(self.z, self.residual, self.apart, self.jacobians, self.stop, self.recorder)
        restart(self.problem, state, lost, self.goal, region, mode, most - SHRINKING, original=True)
        which = lost[self.apart[lost] <= self.goal[lost]]
        # Both terms of the objective are equal there: a weight that holds the match while the change shrinks.
        length = torch.linalg.vector_norm(self.z[which] - self.problem.origin[which], dim=1)
        self.weight[which] = (self.goal[which] / length).square()
        self.damping[which], self.failures[which] = 0.0, 0
        self.meets[which], self.misses[which], self.course[which] = 0.0, torch.inf, torch.inf
        self._remember(which)
        self.run(which, mode, most)

    def step(self, model: LinearModel, which: torch.Tensor) -> torch.Tensor:
        """One step of each pair of ``which`` [k]. Returns where it lowered the objective, [k]."""
        origin, z, r = (each[which] for each in (self.problem.origin, self.z, self.residual))
        weight, damping = self.weight[which], self.damping[which]

        def objective(point: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
            return 0.5 * (point - origin).square().sum(dim=1) + residual.square().sum(dim=1) / (2 * weight)

        before = objective(z, r)
        trial = attempt(
            self.problem,
            model,
            which,
            z,
            r,
            (origin + damping[:, None] * z) / (1 + damping)[:, None],
            weight * (1 + damping),
            (self.bounds[0][which], self.bounds[1][which]),
            objective,
        )
        better = trial.merit < before
        gain = (before - trial.merit) / before
        foretold = (before - objective(trial.z, trial.predicted)) / before
        calmer = torch.where(gain > 0.5 * foretold, damping * DECAY, damping)
        damping = torch.where(better, calmer, (damping * GROWTH).clamp_min(FIRST_DAMPING))
        self.damping[which] = torch.where(damping < NO_DAMPING, 0.0, damping)
        self.failures[which] = torch.where(better, 0, self.failures[which] + 1)
        moved = which[better]
        self.z[moved], self.residual[moved] = trial.z[better], trial.residual[better]
        self.apart[moved] = torch.linalg.vector_norm(trial.residual[better], dim=1)
        self.recorder.note(self.z[which], self.residual[which], which)
        self._remember(moved)
        settled = better & (gain < torch.where(self.meets[which] > 0, POLISHED, SETTLED))
        self._reweigh(which[settled | (self.failures[which] >= GIVE_UP)])
        return better

    def _remember(self, moved: torch.Tensor) -> None:
        length = torch.linalg.vector_norm(self.z[moved] - self.problem.origin[moved], dim=1)
        shorter = (self.apart[moved] <= self.goal[moved]) & (length < self.best_length[moved])
        which = moved[shorter]
        self.best_z[which], self.best_residual[which] = self.z[which], self.residual[which]
        self.best_weight[which], self.best_length[which] = self.weight[which], length[shorter]

    def _reweigh(self, settled: torch.Tensor) -> None:
        """The next weight of pairs that have settled at theirs."""
        weight, met = self.weight[settled], self.apart[settled] <= self.goal[settled]
        falling = torch.cat([self.course[settled, 1:], self.apart[settled, None]], dim=1)
        self.course[settled] = torch.where((weight <= self.scale[settled])[:, None], falling, torch.inf)
        self.meets[settled] = torch.where(met, torch.maximum(self.meets[settled], weight), self.meets[settled])
        self.misses[settled] = torch.where(met, self.misses[settled], torch.minimum(self.misses[settled], weight))
        low, high = self.meets[settled], self.misses[settled]
        between = (low * high).sqrt()
        self.weight[settled] = torch.where(
            low == 0, weight * SHRINK, torch.where(torch.isinf(high), weight / SHRINK, between)
        )
        self.damping[settled], self.failures[settled] = 0.0, 0

    def judge(self, which: torch.Tensor, better: torch.Tensor, most: int) -> torch.Tensor:
        """Which pairs go on, [k]; notes why the others stop."""
        met = torch.isfinite(self.best_length[which])
        done = met & (self.misses[which] <= CLOSE * self.meets[which])
        course = self.course[which]
        fruitless = torch.isfinite(course[:, 0]) & (course[:, -1] > LEFT * course[:, 0])
        tiny = ~met & (fruitless | (self.weight[which] <= LEAST_WEIGHT * self.scale[which]))
        spent = (self.jacobians.to(which.device)[which] >= most) & better
        floor = roundoff(self.problem)
        for place in torch.nonzero(done | tiny | spent).flatten().tolist():
            pair = int(which[place])
            if bool(met[place]):
                self.stop[pair] = "reached"
            elif bool(spent[place]):
                self.stop[pair] = "allowance"
            else:
                self.stop[pair] = "roundoff" if float(self.apart[pair]) <= float(floor[pair]) else "stalled"
        return ~(done | tiny | spent)

    def result(self, region: Region, mode: Mode) -> Matching:
        """The best points, with their optimality residuals (which take one more Jacobian each)."""
        problem, met = self.problem, torch.isfinite(self.best_length)
        z, residual = self.best()
        optimality = torch.full_like(self.apart, torch.nan).masked_fill(self.best_length == 0, 0.0)
        which = torch.nonzero(met & (self.best_length > 0)).flatten()
        if len(which):
            model = linearise(problem, z[which], which, mode)
            self.jacobians[which.cpu()] += 1
            optimality[which] = first_order(model, z[which], problem.origin[which], *(b[which] for b in self.bounds))
        here = State(z, residual, torch.linalg.vector_norm(residual, dim=1), self.jacobians, self.stop, self.recorder)
        share = reducible(problem, here, self.goal, self.bounds, mode)
        if region.l2 is not None:
            beyond = torch.nonzero(met & (self.best_length > region.l2)).flatten().tolist()
            for pair in beyond:
                self.stop[pair] = "stalled"
        return Matching(
            x=z.to(problem.dtype).reshape(-1, *problem.shape),
            residual=residual,
            distance=here.apart,
            stop=tuple(self.stop),
            trace=self.recorder.trace(),
            cost=problem.cost(),
            jacobians=self.jacobians,
            optimality=optimality,
            reducible=share,
            solver="smallest_l2",
            details={"jacobian": mode, "precision": problem.precision},
        )
