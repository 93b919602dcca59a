"""Gradient-descent matching (paper, Eq. 3 and 4), whose successive directions are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import equivengine as eqv

if TYPE_CHECKING:
    import torch

    from equivengine_plugins.probes.ldlc.parameters import LdlcParams


@dataclass
class Descent:
    """A run of gradient-descent matching: points before each step, unit directions, and its course; [steps, ...]."""

    points: torch.Tensor
    directions: torch.Tensor
    loss: list[float]
    cosine: list[float]
    pixel_difference: list[float]
    learning_rate: list[float]


def descend(task: eqv.ProbeTask[LdlcParams], params: LdlcParams, top: float) -> Descent:
    """Gradient descent on Eq. 3, x <- x - lr J^T (f(x) - f(target)); the step is halved where the loss would rise."""
    import torch

    start, target = task.samples
    goal = task.jacobian(target, reverse=True).value.to(torch.float64)
    operator = task.jacobian(start, reverse=True)
    low, high = task.encoder.spec.input_range
    rate = params.learning_rate or 1.0 / top**2
    # Below this the embeddings agree to roundoff, and the gradient has no direction left.
    reached = 8 * operator.epsilon * float(torch.linalg.vector_norm(goal))
    descent = Descent(
        points=torch.empty(params.gradient_steps, start.numel(), dtype=torch.float64, device=start.device),
        directions=torch.empty(params.gradient_steps, start.numel(), dtype=torch.float64, device=start.device),
        loss=[],
        cosine=[],
        pixel_difference=[],
        learning_rate=[],
    )
    for step in range(params.gradient_steps):
        residual = operator.value.to(torch.float64) - goal
        gradient = operator.vjp(residual.to(operator.dtype)[None])[0].to(torch.float64)
        length = torch.linalg.vector_norm(gradient)
        loss = 0.5 * float(residual.square().sum())
        if (2 * loss) ** 0.5 <= reached or float(length) <= 1e-7 * top * (2 * loss) ** 0.5:
            break  # converged, or r lies in the kernel of J^T: what is left of the gradient is roundoff
        descent.points[step] = operator.x.flatten()
        descent.directions[step] = (-gradient / length).flatten()
        descent.loss.append(loss)
        value = operator.value.to(torch.float64)
        descent.cosine.append(float(torch.nn.functional.cosine_similarity(value, goal, dim=0)))
        descent.pixel_difference.append(float((operator.x - start).abs().mean()))
        for _ in range(40):
            proposal = operator.x - rate * gradient.to(operator.dtype)
            if params.clamp:
                proposal = proposal.clamp(low, high)
            moved = task.jacobian(proposal, reverse=True)
            if 0.5 * float((moved.value.to(torch.float64) - goal).square().sum()) < loss:
                break
            rate /= 2
        else:
            break
        descent.learning_rate.append(rate)
        operator = moved
    made = len(descent.loss)
    descent.learning_rate += [rate] * (made - len(descent.learning_rate))
    descent.points, descent.directions = descent.points[:made], descent.directions[:made]
    return descent
