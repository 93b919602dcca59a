"""A walk looked at afresh: embeddings of its points, and of many points between them, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import equivengine as eqv
from equivengine_plugins.probes.yardstick import embeddings


@dataclass(frozen=True)
class Fresh:
    """Fresh evaluations of a walk of K steps; float64.

    Attributes:
        f: Embeddings of the points in the run's precision, [K + 1, n].
        drift: |f(z) - f(x)| in float64, [K + 1].
        between: Largest |f(y) - f(x)| in float64 at points y inside the segment of each step, [K].
        noise: Largest |f(z) - f_64(z)| over the points; machine epsilon times |f(x)| in float64 runs.
        classes: Predicted class of each point, [K + 1]; None without a classifier.
    """

    f: torch.Tensor
    drift: torch.Tensor
    between: torch.Tensor
    noise: float
    classes: torch.Tensor | None


def look_again(task: eqv.ProbeTask[Any], points: torch.Tensor, count: int) -> Fresh:
    """Evaluate points [K + 1, *input_shape], and ``count`` points at equal distances inside each segment."""
    f = embeddings(task, points)
    double = points.double()
    exact = embeddings(task, double, "fp64")
    between = torch.zeros(len(points) - 1, dtype=torch.float64, device=points.device)
    for number in range(1, count + 1):
        inside = torch.lerp(double[:-1], double[1:], number / (count + 1))
        if len(inside):
            apart = torch.linalg.vector_norm(embeddings(task, inside, "fp64") - exact[0], dim=1)
            between = torch.maximum(between, apart)
    if task.precision == "fp64":
        noise = task.encoder.epsilon("fp64") * float(torch.linalg.vector_norm(exact[0]))
    else:
        noise = float(torch.linalg.vector_norm(f - exact, dim=1).max())
    return Fresh(f, torch.linalg.vector_norm(exact - exact[0], dim=1), between, noise, classes_of(task, f))


def classes_of(task: eqv.ProbeTask[Any], f: torch.Tensor) -> torch.Tensor | None:
    """Predicted classes [B] of embeddings [B, n]; the classifier is float32 in any run. None without one."""
    if not task.encoder.classify_ability:
        return None
    with torch.no_grad():
        return task.encoder.classify(f.float()).argmax(dim=1)
