"""Damped Gauss-Newton steps that bring embeddings nearer to targets, within bounds: what several solvers do."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from equivengine.linalg.directions import sign_directions
from equivengine.matching.goals import finite_start
from equivengine.matching.linear import Dense, LinearModel, Mode, linearise
from equivengine.matching.problem import Problem
from equivengine.matching.result import Matching, Recorder, Stop, roundoff
from equivengine.matching.trial import attempt

#: The first damping, over |J|_F^2 / n. Ten times the mean squared singular value: short first steps find nearer
#: matches, and get stuck less often.
FIRST_DAMPING = 10.0
#: Damping is multiplied where a step fails, barely succeeds, succeeds, and is foretold well (ratio of actual to
#: predicted decrease of the squared distance beyond `WELL`, `FAIR`).
FAILED, POOR, FAIR_FACTOR, GOOD = 4.0, 2.0, 0.3, 0.09
WELL, FAIR = 0.75, 0.25
#: Failed steps in a row after which a pair is given up: damping has then grown by 4^14, and steps are roundoff.
GIVE_UP = 14
#: The smallest damping, over |J|_F^2 / n: a step then is Gauss-Newton's, but for the kernel of J^T.
LEAST_DAMPING = 1e-13
#: Random cotangents from which |J|_F is estimated where J is not formed.
SAMPLES = 4
#: A pair is stuck whose distance has not fallen to this share within so many linearizations.
STUCK, PATIENCE = 0.85, 6


@dataclass
class State:
    """Where each pair stands. What `descend` changes in place.

    Attributes:
        z: Points, [B, m].
        residual: f(z) - target, [B, n].
        apart: Its length, [B].
        jacobians: Linearizations so far, [B].
        stop: Why each pair stopped.
        recorder: The course.
    """

    z: torch.Tensor
    residual: torch.Tensor
    apart: torch.Tensor
    jacobians: torch.Tensor
    stop: list[Stop]
    recorder: Recorder

    def matching(
        self,
        problem: Problem,
        solver: str,
        mode: Mode,
        optimality: torch.Tensor | None = None,
        reducible: torch.Tensor | None = None,
        **details: object,
    ) -> Matching:
        """The result of a solver that ends here."""
        return Matching(
            x=self.z.to(problem.dtype).reshape(-1, *problem.shape),
            residual=self.residual,
            distance=self.apart,
            stop=tuple(self.stop),
            trace=self.recorder.trace(),
            cost=problem.cost(),
            jacobians=self.jacobians,
            optimality=torch.full_like(self.apart, torch.nan) if optimality is None else optimality,
            reducible=torch.full_like(self.apart, torch.nan) if reducible is None else reducible,
            solver=solver,
            details={"jacobian": mode, "precision": problem.precision, **details},
        )


def begin(problem: Problem, z: torch.Tensor) -> State:
    """The state at starting points z [B, m].

    Raises:
        NumericsError: If the embedding of one is not finite.
    """
    z = problem.rounded(z)
    everything = torch.arange(len(problem), device=z.device)
    residual = problem.residual(z, everything)
    apart = torch.linalg.vector_norm(residual, dim=1)
    finite_start(apart)
    recorder = Recorder(problem)
    recorder.note(z, residual, everything)
    return State(z, residual, apart, torch.zeros(len(problem), dtype=torch.int64), ["reached"] * len(problem), recorder)


def descend(
    problem: Problem,
    state: State,
    goal: torch.Tensor,
    bounds: tuple[torch.Tensor, torch.Tensor],
    mode: Mode,
    most: int | torch.Tensor,
    l2: float | None = None,
    *,
    patient: bool = True,
) -> None:
    """Levenberg-Marquardt from where each pair stands, until its goal or ``most`` linearizations more.

    Args:
        problem: The problem.
        state: Where pairs stand, within bounds; changed in place.
        goal: Distance to stop at, [B].
        bounds: Smallest and largest value of every coordinate, [B, m] each.
        mode: How J is had.
        most: Linearizations of each pair at most, one number or [B].
        l2: Largest L2 distance from the original.
        patient: Whether to go on with pairs that are stuck; otherwise they stop as stalled.
    """
    device = state.z.device
    floor = roundoff(problem)
    allowed = state.jacobians + most
    which = torch.nonzero(state.apart > goal).flatten()
    for pair in range(len(problem)):
        state.stop[pair] = "reached"
    if not len(which):
        return
    model = linearise(problem, state.z[which], which, mode)
    state.jacobians[which.cpu()] += 1
    scale, damping = torch.zeros_like(state.apart), torch.zeros_like(state.apart)
    failures = torch.zeros(len(problem), dtype=torch.int64, device=device)
    scale[which] = mean_square(model, problem, which)
    course = [state.apart.clone()]
    steps = torch.zeros_like(failures)
    damping[which] = FIRST_DAMPING * scale[which]
    while len(which):
        z, before = state.z[which], state.apart[which]
        trial = attempt(
            problem,
            model,
            which,
            z,
            state.residual[which],
            z,
            damping[which],
            (bounds[0][which], bounds[1][which]),
            lambda _, r: torch.linalg.vector_norm(r, dim=1),
            l2,
        )
        better = trial.merit < before
        foretold = torch.linalg.vector_norm(trial.predicted, dim=1)
        gain = (before.square() - trial.merit.square()) / (before.square() - foretold.square()).clamp_min(1e-300)
        factor = torch.where(gain > WELL, GOOD, torch.where(gain > FAIR, FAIR_FACTOR, POOR))
        damping[which] *= torch.where(better, factor, FAILED)
        damping[which] = torch.maximum(damping[which], LEAST_DAMPING * scale[which])
        failures[which] = torch.where(better, 0, failures[which] + 1)
        moved = which[better]
        state.z[moved], state.residual[moved] = trial.z[better], trial.residual[better]
        state.apart[moved] = trial.merit[better]
        state.recorder.note(state.z[which], state.residual[which], which)

        reached, given_up = state.apart[which] <= goal[which], failures[which] >= GIVE_UP
        if not patient:
            steps[moved] += 1
            course = _noted(course, steps, state.apart)
            given_up |= _stuck(course, steps, state.apart)[which]
        # With the last Jacobian a failed step may still be tried shorter, at no more than forward passes.
        spent = better & (state.jacobians >= allowed).to(device)[which]
        for place in torch.nonzero(reached | given_up | spent).flatten().tolist():
            pair = int(which[place])
            if bool(reached[place]):
                state.stop[pair] = "reached"
            elif bool(given_up[place]):
                state.stop[pair] = "roundoff" if float(state.apart[pair]) <= float(floor[pair]) else "stalled"
            else:
                state.stop[pair] = "allowance"
        keep = ~(reached | given_up | spent)
        if not bool(keep.any()):
            break
        again = torch.nonzero(keep & better).flatten()
        state.jacobians[which[again].cpu()] += 1
        model.refresh(again, state.z[which[again]], which[again])
        if not bool(keep.all()):
            model = model.take(torch.nonzero(keep).flatten())
            which = which[keep]


def mean_square(model: LinearModel, problem: Problem, which: torch.Tensor) -> torch.Tensor:
    """|J|_F^2 / n, [k]: exact of a formed J, otherwise from a few products with random cotangents."""
    if isinstance(model, Dense):
        return model.J.square().sum(dim=(1, 2)) / problem.n
    total = torch.zeros(len(which), dtype=torch.float64, device=problem.origin.device)
    for draw in range(SAMPLES):
        signs = sign_directions(draw, 0, len(which), problem.n, device=problem.origin.device)
        total += model.adjoint(signs).square().sum(dim=1) / signs.square().sum(dim=1)
    return total / SAMPLES


def _noted(course: list[torch.Tensor], steps: torch.Tensor, apart: torch.Tensor) -> list[torch.Tensor]:
    """Distances after each accepted step of each pair, [B] for each count of steps."""
    while len(course) <= int(steps.max()):
        course.append(torch.full_like(apart, torch.nan))
    rows = torch.stack(course)
    rows[steps, torch.arange(len(apart), device=apart.device)] = apart
    return list(rows)


def _stuck(course: list[torch.Tensor], steps: torch.Tensor, apart: torch.Tensor) -> torch.Tensor:
    """Which pairs have come no nearer to speak of within the last `PATIENCE` steps, [B]."""
    before = torch.stack(course)[(steps - PATIENCE).clamp_min(0), torch.arange(len(apart), device=apart.device)]
    return (steps >= PATIENCE) & (apart > STUCK * before)
